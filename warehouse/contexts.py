"""The tables behind `contexts`: every distinct text once, and the records of it with their positive activations.

The units of a model share their texts: OpenAI's XL records are excerpts of 50,000 sequences. So a pattern is looked
for in few texts, and the records of those that hold it stand together, sorted by text. A text is known by a hash of its
tokens, which the check `contexts_agree` compares with the tokens themselves.

How the macros read them: RE2 tells no places, so `context_matches` takes a text apart into pieces, each a match with
the gap before it, and adds up their lengths. What of a piece is the match is told by a second search for the matches
alone, which goes from match to match as the pieces do while none is empty, and else by capturing the gap, at three
times the cost. (After an empty piece RE2 goes one character on.) Only where a phrase overlaps itself is it compared at
every token's end.

`contexts` looks into few records: a match has no stronger activation than `max_activations` says of its tokens, so
once it has the k best of a hundred strong matches, those that cannot reach the weakest of them are left out.

A build adds to the tables and drops from them what the plan of the token index says (`index.plan_index`), in the same
runs. Parts are read a row group at a time; DuckDB sorts, and spills what its memory limit does not hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.index import MEMORY_LIMIT, IndexedShard, IndexPlan
from warehouse.lake import Lake
from warehouse.parts import Shard

Keys = NDArray[np.uint64]

TABLES = ("context_records", "context_texts")
"""The tables of a catalogue that are taken over by the next one."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""An odd number, so that a token's part in the hash of its text depends on its position."""

_DELETE_STALE = """
DELETE FROM context_records AS r
USING context_stale AS s
WHERE r.model = s.model AND r.component = s.component AND r.layer = s.layer
  AND r.unit BETWEEN s.first_unit AND s.last_unit
"""

_DELETE_UNUSED = """
DELETE FROM context_texts
WHERE text_key NOT IN (SELECT text_key FROM context_records)
"""

_APPEND_RECORDS = """
INSERT INTO context_records
FROM context_staged
ORDER BY
  text_key,
  model,
  component,
  layer,
  unit,
  section,
  quantile,
  rank
"""


_RAISE = """
CREATE TEMP TABLE context_raised AS
WITH strongest AS (
  SELECT
    text_key,
    position,
    max(activation) AS activation
  FROM (
    SELECT
      text_key,
      unnest(active_positions) AS position,
      unnest(active_values) AS activation
    FROM {records}
  )
  GROUP BY
    text_key,
    position
),
raised AS (
  SELECT
    p.text_key,
    list(greatest(p.activation, s.activation) ORDER BY p.position) AS max_activations
  FROM (
    SELECT
      text_key,
      CAST(unnest(range(len(max_activations))) AS USMALLINT) AS position,
      unnest(max_activations) AS activation
    FROM context_texts
  ) AS p
  LEFT JOIN strongest AS s USING (text_key, position)
  GROUP BY p.text_key
)
SELECT
  t.text_key,
  t.text,
  t.token_starts,
  r.max_activations
FROM context_texts AS t
INNER JOIN raised AS r USING (text_key)
"""

_LOWER = "UPDATE context_texts SET max_activations = list_resize([CAST(0 AS FLOAT)], len(token_starts), 0)"


def update_contexts(connection: duckdb.DuckDBPyConnection, lake: Lake, plan: IndexPlan) -> None:
    """Bring the texts and records of a catalogue to what is wanted.

    Args:
        connection: to the catalogue that is being built, defined, with the tables that the plan was made for or
            empty ones.
        lake: whose records.
        plan: from `plan_index`, the same that the token index is brought up by.

    Raises:
        duckdb.Error: the disk is full.
        LakeError: a part cannot be read.
    """
    ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    if plan.stale:
        _drop(connection, plan.stale)
    if plan.new:
        _append(connection, lake, plan.new)
    if plan.stale or plan.new:
        _raise(connection, "context_records" if plan.stale else "context_staged")
    connection.execute("DROP TABLE IF EXISTS context_staged")
    connection.execute(f"SET memory_limit = '{limit}'")


def _drop(connection: duckdb.DuckDBPyConnection, shards: Sequence[IndexedShard]) -> None:
    rows = [(s.shard.model, s.shard.component, s.shard.layer, s.shard.first, s.shard.last) for s in shards]
    names = ("model", "component", "layer", "first_unit", "last_unit")
    connection.register("context_stale", pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))))
    connection.execute(_DELETE_STALE)
    connection.execute(_DELETE_UNUSED)
    connection.execute(_LOWER)
    connection.unregister("context_stale")


def _append(connection: duckdb.DuckDBPyConnection, lake: Lake, shards: Sequence[IndexedShard]) -> None:
    known = connection.execute("SELECT text_key FROM context_texts").fetchnumpy()["text_key"]
    texts = _Texts(np.sort(np.asarray(known, np.uint64)))
    connection.execute("CREATE TEMP TABLE context_staged AS FROM context_records LIMIT 0")
    for indexed in shards:
        for group in lake.iterate_part("records", indexed.shard):
            records, new_texts = texts.take(indexed.shard, group)
            _insert(connection, "context_staged", records)
            _insert(connection, "context_texts", new_texts)
    connection.execute(_APPEND_RECORDS)


def _raise(connection: duckdb.DuckDBPyConnection, records: str) -> None:
    """Raise the strongest activations of the texts to those of the records in a table."""
    connection.execute(_RAISE.format(records=records))
    connection.execute("DELETE FROM context_texts")
    connection.execute("INSERT INTO context_texts FROM context_raised ORDER BY text_key")
    connection.execute("DROP TABLE context_raised")


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.register("context_batch", rows)
    connection.execute(f"INSERT INTO {table} FROM context_batch")
    connection.unregister("context_batch")


@dataclass
class _Texts:
    """The texts met so far, by their keys.

    Attributes:
        known: [n_texts] keys of the texts that the catalogue has, sorted.
        hashes: hash of each token met.
    """

    known: Keys
    hashes: dict[str, int] = field(default_factory=dict)

    def take(self, shard: Shard, group: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Give the rows of a row group's records in which their unit is active, and of the texts not met before."""
        offsets, tokens = _flatten_lists(group["tokens"])
        tokens = tokens if pa.types.is_dictionary(tokens.type) else tokens.dictionary_encode()
        codes, vocabulary = tokens.indices.to_numpy(), tokens.dictionary.to_pylist()
        keys = _hash_lists(codes, offsets, self._hash_tokens(vocabulary))
        _, values = _flatten_lists(group["activations"])
        records, is_active = _active_records(shard, group, keys, offsets, values.to_numpy())
        unmet, first = np.unique(keys[is_active], return_index=True)
        is_new = np.isin(unmet, self.known, assume_unique=True, invert=True)
        self.known = np.union1d(self.known, unmet)
        rows = np.flatnonzero(is_active)[first[is_new]]
        return records, _texts_table(keys[rows], list(_spans(rows, offsets)), codes, vocabulary)

    def _hash_tokens(self, vocabulary: Sequence[str]) -> Keys:
        for token in vocabulary:
            if token not in self.hashes:
                digest = hashlib.blake2b(token.encode(), digest_size=8).digest()
                self.hashes[token] = int.from_bytes(digest, "little")
        return np.fromiter(map(self.hashes.__getitem__, vocabulary), np.uint64, len(vocabulary))


def _flatten_lists(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.Array]:
    """Give a column of lists as [n + 1] offsets into the values of all its lists together."""
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], lists.flatten()


def _hash_lists(codes: NDArray[np.int32], offsets: NDArray[np.int64], hashes: Keys) -> Keys:
    """Hash lists of tokens: the sum of each token's own hash, times a power of an odd number for its position.

    Args:
        codes: [n_tokens] number of each token.
        offsets: [n_lists + 1] where each list starts in codes.
        hashes: hash of each token by its number.

    Returns:
        [n_lists] hashes, modulo 2^64: two lists share one by chance once in 2^64.
    """
    lengths = np.diff(offsets)
    powers = np.cumprod(np.full(max(lengths.max(initial=0), 1), _MULTIPLIER))
    positions = np.arange(len(codes)) - np.repeat(offsets[:-1], lengths)
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(hashes[codes] * powers[positions], out=sums[1:])
    return sums[offsets[1:]] - sums[offsets[:-1]]


def _active_records(
    shard: Shard, group: pa.Table, keys: Keys, offsets: NDArray[np.int64], values: NDArray[np.float32]
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Give the rows of the records in which their unit is active, and which of the row group's records those are."""
    places = np.flatnonzero(values > 0)
    bounds = np.searchsorted(places, offsets)
    counts = np.diff(bounds)
    is_active = counts > 0
    positions = (places - np.repeat(offsets[:-1], counts)).astype(np.uint16)
    ends = np.concatenate([[0], np.cumsum(counts[is_active])]).astype(np.int32)
    kept = group.select(["unit", "section", "quantile", "rank"]).filter(pa.array(is_active))
    n = kept.num_rows
    columns = {
        "text_key": pa.array(keys[is_active]),
        "model": pa.array([shard.model]).dictionary_encode().take(pa.array(np.zeros(n, np.int32))),
        "component": pa.array([shard.component]).dictionary_encode().take(pa.array(np.zeros(n, np.int32))),
        "layer": pa.array(np.full(n, shard.layer, np.int16)),
        **{name: kept[name] for name in kept.column_names},
        "active_positions": pa.ListArray.from_arrays(pa.array(ends), pa.array(positions)),
        "active_values": pa.ListArray.from_arrays(pa.array(ends), pa.array(values[places])),
    }
    return pa.table(columns), is_active


def _spans(rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    return zip(offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True)


def _texts_table(
    keys: Keys, spans: Sequence[tuple[int, int]], codes: NDArray[np.int32], vocabulary: Sequence[str]
) -> pa.Table:
    """Join the tokens of texts, and give the character at which each token starts; no activation is counted yet."""
    joined, starts, zeros = [], [], []
    for first, end in spans:
        tokens = [vocabulary[code] for code in codes[first:end].tolist()]
        joined.append("".join(tokens))
        starts.append(np.cumsum([0, *map(len, tokens[:-1])], dtype=np.int32))
        zeros.append(np.zeros(len(tokens), np.float32))
    types = [("text_key", pa.uint64()), ("text", pa.string()), ("token_starts", pa.list_(pa.int32()))]
    types.append(("max_activations", pa.list_(pa.float32())))
    return pa.table([keys, joined, starts, zeros], schema=pa.schema(types))

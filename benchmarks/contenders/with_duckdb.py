"""DuckDB by itself: read_json, UNNEST, GROUP BY, COPY. Two formulations, since neither is the faster one everywhere."""

from __future__ import annotations

import time

import duckdb

from benchmarks.trial import Trial

_RECORD = "STRUCT(tokens VARCHAR[], activations FLOAT[])"

_FLAT = f"""
WITH units AS (
  SELECT
    neuron_id.neuron_index AS unit,
    list_concat(
      list_transform(most_positive_activation_records, lambda r, i: {{
        'section': 'top', 'quantile': NULL::INTEGER, 'rank': i - 1, 'record': r
      }}),
      list_transform(random_sample, lambda r, i: {{
        'section': 'random', 'quantile': NULL::INTEGER, 'rank': i - 1, 'record': r
      }}),
      flatten(list_transform(random_sample_by_quantile, lambda bucket, q: list_transform(bucket, lambda r, i: {{
        'section': 'quantile', 'quantile': (q - 1)::INTEGER, 'rank': i - 1, 'record': r
      }})))
    ) AS places
  FROM read_json($files, format = 'unstructured', columns = {{
    neuron_id: 'STRUCT(layer_index INTEGER, neuron_index INTEGER)',
    most_positive_activation_records: '{_RECORD}[]',
    random_sample: '{_RECORD}[]',
    random_sample_by_quantile: '{_RECORD}[][]'
  }})
),
places AS (SELECT unit, unnest(places) AS place FROM units)
SELECT
  unit,
  place.section AS section,
  place.quantile AS quantile,
  place.rank::INTEGER AS rank,
  place.record.tokens AS tokens,
  place.record.activations AS activations
FROM places
"""

_STATISTICS = """
SELECT
  unit,
  token,
  count(*)::INTEGER AS n,
  count_if(activation > 0)::INTEGER AS n_active,
  max(activation) AS max_activation,
  sum(activation)::FLOAT AS sum_activation,
  count_if(section = 'random')::INTEGER AS n_random,
  coalesce(sum(activation) FILTER (section = 'random'), 0)::FLOAT AS sum_random,
  coalesce(sum(activation) FILTER (activation > 0), 0)::FLOAT AS sum_positive
FROM (
  SELECT unit, section, unnest(tokens) AS token, unnest(activations) AS activation
  FROM {records}
)
GROUP BY ALL
HAVING n_active > 0
"""

# Row groups as small as the records' give the threads something to share. The files go to their partition's folder by
# name: PARTITION_BY of the one partition that there is took twice as long.
_PARQUET = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {rows})"


def flatten_through_table(trial: Trial) -> float:
    """Parse into a temporary table, and write both tables from it.

    Returns:
        Seconds, after a warm-up on a few files.
    """
    return _time(trial, through_table=True)


def flatten_through_parquet(trial: Trial) -> float:
    """Stream the parsed records into Parquet, and compute the statistics from that.

    Returns:
        Seconds, after a warm-up on a few files.
    """
    return _time(trial, through_table=False)


def _time(trial: Trial, through_table: bool) -> float:
    with duckdb.connect() as con:
        con.sql(f"SET threads = {trial.cores}")
        con.sql("SET preserve_insertion_order = false")
        con.sql("SET enable_progress_bar = false")
        _flatten(con, trial.warm_up(), through_table)
        started = time.perf_counter()
        _flatten(con, trial, through_table)
        return time.perf_counter() - started


def _flatten(con: duckdb.DuckDBPyConnection, trial: Trial, through_table: bool) -> None:
    paths = {table: trial.partition(table) / "all.parquet" for table in ("records", "token_stats")}
    files = {"files": trial.files()}
    records = "flat" if through_table else f"read_parquet('{paths['records']}')"
    if through_table:
        con.execute(f"CREATE OR REPLACE TEMP TABLE flat AS {_FLAT}", files)
        con.execute(f"COPY flat TO '{paths['records']}' {_PARQUET.format(rows=10_240)}")
    else:
        con.execute(f"COPY ({_FLAT}) TO '{paths['records']}' {_PARQUET.format(rows=10_240)}", files)
    statistics = _STATISTICS.format(records=records)
    con.execute(f"COPY ({statistics}) TO '{paths['token_stats']}' {_PARQUET.format(rows=122_880)}")

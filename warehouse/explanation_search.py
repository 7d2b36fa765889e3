"""The tables behind `search_explanations` and `nearest_explanations`: texts, their terms, and their embeddings.

A build takes these tables over from the catalogue before it, and does only what changed: it drops what is of parts and
batches that are gone or were written again, and appends what is of new ones, as a further sorted run of terms. Where
that would make too many runs, the terms are sorted again. Batches of answers are read together wherever one of them is
new, and the tables brought to what merged_answers says: the newest answer stands for all that say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from warehouse.index import MAX_RUNS, MEMORY_LIMIT
from warehouse.lake import Lake

TABLES = (
    "explanation_parts",
    "explanation_terms",
    "explanation_texts",
    "explanation_vectors",
    "explanation_vocabulary",
)
"""The tables of a catalogue that are taken over by the next one."""

_SOURCES = ("explanations", "answers", "embeddings")
"""The tables of the lake that these follow."""

_PARTS = "read_parquet(getvariable('explanation_paths'), filename = true, hive_partitioning = {hive})"

_PUBLISHED = f"""
SELECT
  p.part_number,
  CAST(r.model AS VARCHAR) AS model,
  r.about AS component,
  CAST(r.layer AS SMALLINT) AS layer,
  r.unit,
  concat_ws('/', r.model, r.component) AS dataset,
  r.rank,
  r.explanation,
  r.explainer,
  r.score,
  r.score_kind,
  r.origin,
  r.created_at
FROM {_PARTS.format(hive="true, hive_types = {model: VARCHAR, component: VARCHAR, layer: INTEGER}")} AS r
INNER JOIN explanation_parts AS p ON p.part = substr(r.filename, $start)
"""

_STAGE_ANSWERS = """
CREATE TEMP TABLE explanation_answers AS
SELECT
  p.part_number,
  a.model,
  a.component,
  CAST(a.layer AS SMALLINT) AS layer,
  a.unit,
  concat_ws('/', 'answers', a.batch) AS dataset,
  a.rank,
  a.explanation,
  a.explainer,
  a.scores[1].score AS score,
  a.scores[1].score_kind AS score_kind,
  a.origin,
  a.created_at
FROM merged_answers AS a
LEFT JOIN explanation_parts AS p ON p.part = concat('answers/', a.batch, '.parquet')
"""
# All of them, not those of new batches alone: an answer may take the place of an earlier one, or give it a score.

_OUTDATED = """
SELECT t.explanation_number
FROM explanation_texts AS t
ANTI JOIN explanation_answers AS a
  ON (t.model, t.component, t.layer, t.unit, t.dataset, t.rank, t.explanation, t.origin)
    = (a.model, a.component, a.layer, a.unit, a.dataset, a.rank, a.explanation, a.origin)
  AND t.explainer IS NOT DISTINCT FROM a.explainer
  AND t.score IS NOT DISTINCT FROM a.score
  AND t.score_kind IS NOT DISTINCT FROM a.score_kind
  AND t.created_at IS NOT DISTINCT FROM a.created_at
WHERE starts_with(t.dataset, 'answers/')
"""

_ANSWERED = """
FROM explanation_answers
ANTI JOIN explanation_texts USING (model, component, layer, unit, dataset, rank)
"""

_APPEND_TEXTS = """
INSERT INTO explanation_texts
SELECT
  $first + row_number() OVER (ORDER BY r.model, r.component, r.layer, r.unit, r.dataset, r.rank) - 1,
  r.part_number,
  r.model,
  r.component,
  r.layer,
  r.unit,
  r.dataset,
  r.rank,
  r.explanation,
  md5_number_lower(r.explanation),
  len(split_words(r.explanation)),
  r.explainer,
  r.score,
  r.score_kind,
  r.origin,
  r.created_at
FROM ({rows}) AS r
"""

_APPEND_VECTORS = f"""
INSERT INTO explanation_vectors
SELECT
  r.explanation_hash,
  any_value(p.part_number),
  CAST(any_value(r.embedding) AS FLOAT[384])
FROM {_PARTS.format(hive="false")} AS r
INNER JOIN explanation_parts AS p ON p.part = substr(r.filename, $start)
ANTI JOIN explanation_vectors AS v ON v.explanation_hash = r.explanation_hash
GROUP BY r.explanation_hash
"""

_STAGE_WORDS = """
CREATE TEMP TABLE explanation_words AS
SELECT
  explanation_number,
  any_value(n_words) AS n_words,
  word,
  count(*) AS n_in_text
FROM (
  SELECT
    explanation_number,
    n_words,
    unnest(split_words(explanation)) AS word
  FROM explanation_texts
  WHERE explanation_number >= $first
)
GROUP BY
  explanation_number,
  word
"""

_STAGE_STEMS = """
CREATE TEMP TABLE explanation_stems AS
SELECT
  word,
  word_stem(word) AS term
FROM (SELECT DISTINCT word FROM explanation_words)
"""
# Of each distinct word once: a stem takes nine regular expressions.

_APPEND_VOCABULARY = """
INSERT INTO explanation_vocabulary
SELECT
  (SELECT coalesce(max(term_number), -1) FROM explanation_vocabulary) + row_number() OVER (ORDER BY term),
  term,
  0
FROM (SELECT DISTINCT term FROM explanation_stems)
ANTI JOIN explanation_vocabulary USING (term)
"""

_APPEND_TERMS = """
INSERT INTO explanation_terms
SELECT
  v.term_number,
  w.explanation_number,
  sum(w.n_in_text),
  any_value(w.n_words)
FROM explanation_words AS w
INNER JOIN explanation_stems AS s USING (word)
INNER JOIN explanation_vocabulary AS v USING (term)
GROUP BY
  v.term_number,
  w.explanation_number
ORDER BY
  v.term_number,
  w.explanation_number
"""

_COUNT_VOCABULARY = """
SELECT
  v.term_number,
  v.term,
  c.n_explanations
FROM explanation_vocabulary AS v
INNER JOIN (
  SELECT
    term_number,
    count(*) AS n_explanations
  FROM explanation_terms
  GROUP BY term_number
) AS c USING (term_number)
ORDER BY v.term
"""


def update_explanations(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Bring the tables of search to what the parts of the catalogue hold.

    Args:
        connection: to the catalogue that is being built, defined, with the tables of the one before it or empty ones.
        lake: whose parts.

    Raises:
        duckdb.Error: a part cannot be read, or the disk is full.
    """
    sources = _list_sources(connection, lake)
    wanted = {part: mark for marks in sources.values() for part, mark in marks.items()}
    present = dict(connection.execute("SELECT part, commit_mark FROM explanation_parts").fetchall())
    stale = [part for part, mark in present.items() if wanted.get(part) != mark]
    kept = present.keys() - set(stale)
    new = {table: [part for part in marks if part not in kept] for table, marks in sources.items()}
    if not stale and not any(new.values()):
        return
    ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    if stale:
        _drop(connection, stale)
    has_other_answers = any(part.startswith("answers/") for part in (*stale, *new["answers"]))
    if has_other_answers or any(new.values()):
        _append(connection, f"{lake.prefix}{lake.root}/", new, wanted, has_other_answers)
    _replace(connection, "explanation_vocabulary", _COUNT_VOCABULARY)
    connection.execute(f"SET memory_limit = '{limit}'")


def _list_sources(connection: duckdb.DuckDBPyConnection, lake: Lake) -> dict[str, dict[str, str]]:
    """Give the parts that the catalogue's views read by table, each as its path in the lake with its mark."""
    start = len(f"{lake.prefix}{lake.root}/")
    sources: dict[str, dict[str, str]] = {table: {} for table in _SOURCES}
    marks = {lake.prefix + lake.part_path("explanations", s): mark for s, mark in lake.marks("explanations").items()}
    for table in ("answers", "embeddings"):
        marks |= {lake.prefix + path: mark for path, mark in lake.batches(table).items()}
    rows = connection.execute(
        "SELECT table_name, path FROM parts WHERE table_name IN $tables ORDER BY ALL", {"tables": list(_SOURCES)}
    ).fetchall()
    for table, path in rows:
        sources[table][path[start:]] = marks.get(path, "")
    return sources


def _drop(connection: duckdb.DuckDBPyConnection, parts: Sequence[str]) -> None:
    connection.register("stale_parts", pa.table({"part": pa.array(parts, pa.string())}))
    gone = "SELECT part_number FROM explanation_parts SEMI JOIN stale_parts USING (part)"
    _drop_texts(connection, f"SELECT explanation_number FROM explanation_texts WHERE part_number IN ({gone})")
    for table in ("explanation_vectors", "explanation_parts"):
        connection.execute(f"DELETE FROM {table} WHERE part_number IN ({gone})")
    connection.unregister("stale_parts")


def _drop_texts(connection: duckdb.DuckDBPyConnection, numbers: str) -> None:
    connection.execute(f"CREATE TEMP TABLE explanation_gone AS {numbers}")
    for table in ("explanation_terms", "explanation_texts"):
        connection.execute(f"DELETE FROM {table} WHERE explanation_number IN (FROM explanation_gone)")
    connection.execute("DROP TABLE explanation_gone")


def _append(
    connection: duckdb.DuckDBPyConnection,
    root: str,
    new: Mapping[str, Sequence[str]],
    marks: Mapping[str, str],
    has_other_answers: bool,
) -> None:
    run = _number_parts(connection, [part for parts in new.values() for part in parts], marks)
    if has_other_answers:
        connection.execute(_STAGE_ANSWERS)
        _drop_texts(connection, _OUTDATED)
    first = _next_number(connection)
    start = len(root) + 1
    if parts := new["explanations"]:
        _set_paths(connection, [root + part for part in parts])
        connection.execute(_APPEND_TEXTS.format(rows=_PUBLISHED), {"first": first, "start": start})
    if has_other_answers:
        connection.execute(_APPEND_TEXTS.format(rows=_ANSWERED), {"first": _next_number(connection)})
        connection.execute("DROP TABLE explanation_answers")
    if parts := new["embeddings"]:
        _set_paths(connection, [root + part for part in parts])
        connection.execute(_APPEND_VECTORS, {"start": start})
    connection.execute("RESET VARIABLE explanation_paths")
    connection.execute(_STAGE_WORDS, {"first": first})
    connection.execute(_STAGE_STEMS)
    connection.execute(_APPEND_VOCABULARY)
    connection.execute(_APPEND_TERMS)
    connection.execute("DROP TABLE explanation_words")
    connection.execute("DROP TABLE explanation_stems")
    if run >= MAX_RUNS:
        _replace(connection, "explanation_terms", "FROM explanation_terms ORDER BY term_number, explanation_number")
        connection.execute("UPDATE explanation_parts SET run = 0")


def _next_number(connection: duckdb.DuckDBPyConnection) -> int:
    ((number,),) = connection.execute(
        "SELECT coalesce(max(explanation_number) + 1, 0) FROM explanation_texts"
    ).fetchall()
    return int(number)


def _number_parts(connection: duckdb.DuckDBPyConnection, parts: Sequence[str], marks: Mapping[str, str]) -> int:
    """Enter parts as held, and give the number of the run that their terms become, from 0."""
    ((number, run),) = connection.execute(
        "SELECT coalesce(max(part_number) + 1, 0), coalesce(max(run) + 1, 0) FROM explanation_parts"
    ).fetchall()
    rows = pa.table(
        {
            "part": list(parts),
            "commit_mark": [marks[part] for part in parts],
            "part_number": pa.array(range(number, number + len(parts)), pa.int32()),
            "run": pa.array([run] * len(parts), pa.int32()),
        }
    )
    connection.register("new_parts", rows)
    connection.execute("INSERT INTO explanation_parts FROM new_parts")
    connection.unregister("new_parts")
    return int(run)


def _set_paths(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Set what the statements read, each path as the pattern that matches it alone."""
    connection.register("new_paths", pa.table({"path": list(paths)}))
    connection.execute(
        "SET VARIABLE explanation_paths = "
        "(SELECT list(regexp_replace(path, '[*?[]', '[\\0]', 'g') ORDER BY path) FROM new_paths)"
    )
    connection.unregister("new_paths")


def _replace(connection: duckdb.DuckDBPyConnection, table: str, query: str) -> None:
    """Put the rows of a query over a table in the place of the table's own."""
    connection.execute(f"CREATE TEMP TABLE explanation_replacing AS {query}")
    connection.execute(f"DELETE FROM {table}")
    connection.execute(f"INSERT INTO {table} FROM explanation_replacing")
    connection.execute("DROP TABLE explanation_replacing")

"""Contexts against a plain search through every record: phrases, substrings and regular expressions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.indexes import failing_units, open_indexed
from tests.sql.lakes import HEADS, NEURONS, PAIR_LATENTS, XL, Content, list_records, make_content, write_lake
from warehouse import contexts
from warehouse.catalogue import build_catalogue, read_sql
from warehouse.lake import Lake
from warehouse.parts import Shard
from warehouse.records import SECTIONS, ActivationRecord, NeuronRecord, UnitId

Found = tuple[object, ...]
PER_PAIR = {HEADS, PAIR_LATENTS}
PLANTED = [" over", " the", " lazy", " dog", "\ufffd", "\ufffd", "", "!"]
PATTERNS = [
    (" the cat", "phrase"),
    ("the", "phrase"),
    ("the cat", "phrase"),
    ("he", "substring"),
    ("the cat", "substring"),
    ("\ufffd", "phrase"),
    ("\n", "phrase"),
    ('"', "substring"),
    ("::", "phrase"),
    (":", "substring"),
    ("\\", "substring"),
    (" été", "phrase"),
    ("[Tt]he", "regex"),
    (r"(t)h(e| c)", "regex"),
    (r"\bthe\b", "regex"),
    ("^.", "regex"),
    ("(?i)THE$", "regex"),
    ("t*", "regex"),
    (r"\bd?", "regex"),
    ("a,b|\ufffd", "regex"),
]


@pytest.fixture(scope="module")
def content() -> Content:
    """The lake of every kind of dataset, with a unit that is active in a planted phrase, stronger than any other.

    Another unit has one of its texts too, and is half as active there.
    """
    made = make_content()
    values = np.array([-1, 0.5, 30, 40, 20, 40, 0, -1], np.float32)
    other = ActivationRecord([" a", " dog", " over", " there"], np.array([90, 90, 90, 90], np.float32))
    planted = NeuronRecord(random_sample=[other, ActivationRecord(PLANTED, values)])
    weaker = NeuronRecord(random_sample=[ActivationRecord(other.tokens, np.array([45, 45, 45, 45], np.float32))])
    units = {UnitId.parse(f"{XL}/47/6399"): planted, UnitId.parse(f"{XL}/46/0"): weaker}
    return Content(made.units | units, made.other_files, made.siblings)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, content: Content) -> Lake:
    """The lake with a catalogue that can be searched; do not write to it."""
    lake = write_lake(Lake(tmp_path_factory.mktemp("searched") / "lake"), content)
    build_catalogue(lake)
    return lake


@pytest.fixture(scope="module")
def catalogue(built: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_indexed(built) as connection:
        yield connection


@pytest.fixture
def own(tmp_path: Path, built: Lake) -> Lake:
    """A copy of the lake with its catalogue, that a test may change."""
    return Lake(shutil.copytree(built.root, tmp_path / "lake"))


def find_wrong_maxima(lake: Lake) -> list[tuple[str, int]]:
    """Run the check of the strongest activations of texts; give the texts and tokens that fail it."""
    query = read_sql("checks")["context_maxima_agree"].rstrip().removesuffix(";")
    with open_indexed(lake) as connection:
        return connection.execute(
            f"SELECT text, position FROM ({query}) INNER JOIN context_texts USING (text_key) ORDER BY ALL"
        ).fetchall()


def find_spans(tokens: list[str], pattern: str, how: str) -> set[tuple[int, int]]:
    """Give the first and last token of every match, by trying every run of tokens or every match of `re`."""
    if how == "phrase":
        spans = [(a, b) for a in range(len(tokens)) for b in range(a, len(tokens)) if tokens[a] and tokens[b]]
        joined = {(a, b): "".join(tokens[a : b + 1]) for a, b in spans}
        without_space = {span: text[1:] for span, text in joined.items() if text[0] == " " != tokens[span[0]]}
        return {span for span in spans if pattern in (joined[span], without_space.get(span))}
    expression = pattern if how == "regex" else re.escape(pattern)
    # RE2's classes are of ASCII, and its $ is the end alone.
    matches = re.finditer(expression.replace("$", r"\Z"), "".join(tokens), re.ASCII)
    ends = list(accumulate(map(len, tokens)))
    starts = [0, *ends[:-1]]
    spans_of_tokens = set()
    for match in matches:
        if match.group():
            a, b = match.span()
            inside = [i for i in range(len(tokens)) if starts[i] < b and ends[i] > a]
            spans_of_tokens.add((inside[0], inside[-1]))
    return spans_of_tokens


def search(content: Content, pattern: str, how: str) -> list[Found]:
    """Search every record of every unit per token."""
    found: list[Found] = []
    for name, unit in content.units.items():
        if f"{name.model}/{name.component}" in PER_PAIR:
            continue
        for section, quantile, rank, record in list_records(unit):
            for first, last in find_spans(record.tokens, pattern, how):
                inside = record.activations[first : last + 1]
                if inside.max() > 0:
                    position = first + int(inside.argmax())
                    found.append(
                        (
                            *(-float(inside.max()), name.model, name.component, name.layer, name.unit),
                            *(
                                SECTIONS.index(section),
                                -1 if quantile is None else quantile,
                                rank,
                                first,
                                last,
                                position,
                            ),
                            "".join(record.tokens[max(first - 2, 0) : first]),
                            "".join(record.tokens[first : last + 1]),
                            "".join(record.tokens[last + 1 : last + 3]),
                            record.tokens[position],
                        )
                    )
    return sorted(found)


def ask(connection: duckdb.DuckDBPyConnection, pattern: str, how: str, k: int = 100_000) -> list[Found]:
    return connection.execute(
        "SELECT -CAST(activation AS DOUBLE), model, component, layer, unit, "
        "list_position(['top', 'random', 'quantile'], section) - 1, coalesce(quantile, -1), record_rank, "
        "first_position, last_position, position, before, matched, after, token "
        "FROM contexts($pattern, how := $how, k := $k, around := 2)",
        {"pattern": pattern, "how": how, "k": k},
    ).fetchall()


@pytest.mark.parametrize(("pattern", "how"), PATTERNS)
def test_contexts_are_those_of_a_search_through_all_records(
    catalogue: duckdb.DuckDBPyConnection, content: Content, pattern: str, how: str
) -> None:
    expected = search(content, pattern, how)
    assert expected
    assert ask(catalogue, pattern, how) == expected
    assert ask(catalogue, pattern, how, k=3) == expected[:3]


@pytest.mark.parametrize(
    ("pattern", "how"), [("over the lazy dog", "phrase"), ("er the laz", "substring"), (r"the\s\w+y\b", "regex")]
)
def test_a_planted_phrase_is_found_at_rank_one_with_the_tokens_around(
    catalogue: duckdb.DuckDBPyConnection, pattern: str, how: str
) -> None:
    ((unit_id, rank, activation, token, section, record_rank),) = catalogue.execute(
        "SELECT unit_id, rank, activation, token, section, record_rank FROM contexts($p, how := $how, k := 1)",
        {"p": pattern, "how": how},
    ).fetchall()
    strongest, where = (40.0, " dog") if how == "phrase" else (30.0, " lazy")
    assert (unit_id, rank, activation, token) == (f"{XL}/47/6399", 0, strongest, where)
    assert (section, record_rank) == ("random", 1)


@pytest.mark.parametrize(("pattern", "how"), [(" the cat", "phrase"), ("he", "substring"), ("[Tt]he", "regex")])
def test_an_excerpt_has_the_tokens_and_positive_activations_of_its_record(
    catalogue: duckdb.DuckDBPyConnection, content: Content, pattern: str, how: str
) -> None:
    records = {
        (str(name), section, quantile, rank): record
        for name, unit in content.units.items()
        for section, quantile, rank, record in list_records(unit)
    }
    tops = {
        str(name): max((float(r.activations.max()) for r in unit.most_positive_activation_records), default=None)
        for name, unit in content.units.items()
    }
    found = catalogue.execute(
        "SELECT unit_id, section, quantile, record_rank, first_position, last_position, n_tokens, excerpt_position, "
        "tokens, activations, max_activation FROM context_excerpts($p, how := $how, k := 1000, around := 2)",
        {"p": pattern, "how": how},
    ).fetchall()
    assert found
    for *place, first, last, n_tokens, start, tokens, activations, largest in found:
        record = records[tuple(place)]
        assert (n_tokens, start, largest) == (len(record.tokens), max(first - 2, 0), tops[place[0]])
        assert tokens == record.tokens[start : last + 3]
        assert activations == record.activations[start : last + 3].clip(min=0).tolist()


def test_a_unit_that_fires_beside_the_match_alone_is_not_listed(catalogue: duckdb.DuckDBPyConnection) -> None:
    units = {row[1:5] for row in ask(catalogue, " over the", "phrase")}
    assert units == {("gpt2-xl", "mlp_post_act", 47, 6399)}


def test_a_phrase_that_overlaps_itself_is_found_where_whole_tokens_make_it(tmp_path: Path) -> None:
    record = ActivationRecord([".", "...", ".", "."], np.array([1, 2, 3, 4], np.float32))
    lake = write_lake(
        Lake(tmp_path / "lake"), Content({UnitId.parse(f"{XL}/0/0"): NeuronRecord(random_sample=[record])})
    )
    build_catalogue(lake)
    with open_indexed(lake) as connection:
        spans = connection.execute("SELECT first_position, last_position FROM context_matches('...') ORDER BY ALL")
        assert spans.fetchall() == [(1, 1)]


def test_a_part_of_a_token_is_a_substring_and_no_phrase(catalogue: duckdb.DuckDBPyConnection) -> None:
    assert not ask(catalogue, ":", "phrase")
    assert ask(catalogue, ":", "substring")


def test_filters_choose_among_models_components_and_layers(catalogue: duckdb.DuckDBPyConnection) -> None:
    found = catalogue.execute(
        "SELECT DISTINCT model || '/' || component, layer FROM contexts('the', k := 10000, model := 'gpt2-small', "
        "component := 'mlp_post_act', layer := 1)"
    ).fetchall()
    assert found == [(NEURONS, 1)]


@pytest.mark.parametrize("by", ["max", "texts"])
def test_units_by_context_are_ranked_as_a_search_through_all_records_does(
    catalogue: duckdb.DuckDBPyConnection, content: Content, by: str
) -> None:
    texts: dict[tuple[object, ...], set[tuple[str, ...]]] = {}
    strongest: dict[tuple[object, ...], float] = {}
    for name, unit in content.units.items():
        if f"{name.model}/{name.component}" not in PER_PAIR:
            key = (name.model, name.component, name.layer, name.unit)
            for *_, record in list_records(unit):
                for first, last in find_spans(record.tokens, "the", "phrase"):
                    if (inside := float(record.activations[first : last + 1].max())) > 0:
                        texts.setdefault(key, set()).add(tuple(record.tokens))
                        strongest[key] = max(strongest.get(key, 0), inside)
    scores = strongest if by == "max" else {key: float(len(found)) for key, found in texts.items()}
    expected = sorted((-scores[key], *key, strongest[key], len(texts[key])) for key in texts)
    found = catalogue.execute(
        "SELECT -score, model, component, layer, unit, max_activation, n_texts "
        "FROM top_units_by_context('the', k := 1000, \"by\" := $by)",
        {"by": by},
    ).fetchall()
    assert found == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("contexts('the', how := 'fuzzy')", "how must be phrase, substring or regex"),
        ("contexts('')", "pattern must not be empty"),
        ("contexts('(', how := 'regex')", "missing \\)"),
        ("top_units_by_context('the', \"by\" := 'mean')", "by must be max or texts"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_is_right(
    catalogue: duckdb.DuckDBPyConnection, call: str, message: str
) -> None:
    with pytest.raises(duckdb.Error, match=message):
        catalogue.execute(f"FROM {call}").fetchall()


def test_every_text_is_stored_once(catalogue: duckdb.DuckDBPyConnection, content: Content) -> None:
    expected = {
        tuple(record.tokens)
        for name, unit in content.units.items()
        if f"{name.model}/{name.component}" not in PER_PAIR
        for *_, record in list_records(unit)
        if record.activations.max(initial=0) > 0
    }
    texts = catalogue.execute("SELECT text, token_starts FROM context_texts").fetchall()
    assert sorted(texts) == sorted(("".join(tokens), [0, *accumulate(map(len, tokens[:-1]))]) for tokens in expected)


def test_the_check_names_the_token_whose_strongest_activation_is_not_that_of_its_records(own: Lake) -> None:
    assert find_wrong_maxima(own) == []
    with duckdb.connect(str(own.catalogue_path)) as connection:
        connection.execute(
            "UPDATE context_texts SET max_activations = [99] || max_activations[2:] WHERE contains(text, 'lazy')"
        )
    assert find_wrong_maxima(own) == [("".join(PLANTED), 0)]


def test_the_check_names_the_unit_whose_contexts_are_not_its_records(own: Lake) -> None:
    assert failing_units(own, "contexts_agree") == []
    with duckdb.connect(str(own.catalogue_path)) as connection:
        ((unit,),) = connection.execute(
            "UPDATE context_records SET active_values = list_reverse(active_values) "
            "WHERE layer = 47 AND rank = 1 RETURNING concat_ws('/', model, component, layer, unit)"
        ).fetchall()
    assert failing_units(own, "contexts_agree") == [unit]


def test_a_removed_shard_takes_its_records_and_its_texts_along(own: Lake) -> None:
    (shard,) = [shard for shard in own.shards("token_stats") if shard.layer == 47]
    own.remove_shard(shard)
    build_catalogue(own)
    assert failing_units(own, "contexts_agree") == []
    assert find_wrong_maxima(own) == []
    with open_indexed(own) as connection:
        assert not ask(connection, "lazy", "phrase")
        assert not connection.execute("FROM context_texts WHERE contains(text, 'lazy')").fetchall()


def test_an_added_shard_is_read_and_no_other(own: Lake, built: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    (shard,) = [shard for shard in own.shards("token_stats") if shard.layer == 47]
    own.remove_shard(shard)
    build_catalogue(own)
    shutil.copytree(built.root, own.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.duckdb"))
    read: list[Shard] = []
    iterate_part = Lake.iterate_part

    def note(lake: Lake, table: str, shard: Shard) -> Iterator[pa.Table]:
        read.append(shard)
        return iterate_part(lake, table, shard)

    monkeypatch.setattr(Lake, "iterate_part", note)
    build_catalogue(own)
    assert read == [shard]
    assert failing_units(own, "contexts_agree") == []
    assert find_wrong_maxima(own) == []
    with open_indexed(own) as connection:
        assert ask(connection, "lazy", "phrase")


def test_texts_share_a_key_only_where_their_tokens_are_the_same() -> None:
    lists = [[0, 1], [1, 0], [0, 1, 2], [], [2], [0, 1], [2, 2], [2, 2, 2]]
    codes = np.array([code for tokens in lists for code in tokens], np.int32)
    offsets = np.cumsum([0, *map(len, lists)])
    keys = contexts._hash_lists(codes, offsets, np.array([3, 5, 2**63 + 1], np.uint64)).tolist()
    assert keys[0] == keys[5]
    assert len(set(keys)) == len(lists) - 1


TOKENS = st.lists(st.sampled_from(["a", " a", "", "b", ".", "..", "é", "\ufffd", "\0", "\n", " ", "🙂b"]), max_size=7)
EXPRESSIONS = st.sampled_from(
    [r"a.|b", r"[ab]+", r"(a|b) ?\.", r"\ba", r"^.", r"a$", r"(?i)A +B?", r"\.\.?", r"b*", r"\W"]
)


def write_texts(connection: duckdb.DuckDBPyConnection, texts: list[list[str]]) -> None:
    """Put texts into an empty table of them, each under its place in the list, with no activation counted."""
    connection.execute("CREATE OR REPLACE TABLE context_texts AS FROM empty_texts")
    rows = [
        (number, "".join(tokens), [0, *accumulate(map(len, tokens[:-1]))], [0.0] * len(tokens))
        for number, tokens in enumerate(texts)
    ]
    connection.executemany("INSERT INTO context_texts VALUES (?, ?, ?, ?)", rows)


@pytest.fixture(scope="module")
def unfilled() -> duckdb.DuckDBPyConnection:
    """A catalogue of nothing but the tables and macros of contexts."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE datasets AS SELECT 'm' AS model, 'c' AS component")
    for folder, names in (
        ("tables", ("index_rows", "context_texts", "context_records")),
        ("macros", ("context_matches", "context_hits")),
    ):
        for name in names:
            connection.execute(read_sql(folder)[name])  # type: ignore[arg-type]
    connection.execute("CREATE TABLE empty_texts AS FROM context_texts")
    return connection


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(TOKENS, min_size=1, max_size=4),
    phrase=st.lists(TOKENS, min_size=1, max_size=3),
    expression=EXPRESSIONS,
)
def test_any_pattern_in_any_tokens_is_found_where_a_plain_search_finds_it(
    unfilled: duckdb.DuckDBPyConnection, texts: list[list[str]], phrase: list[list[str]], expression: str
) -> None:
    write_texts(unfilled, texts)
    patterns = {("".join(tokens), how) for tokens in phrase for how in ("phrase", "substring") if "".join(tokens)}
    for pattern, how in patterns | {(expression, "regex")}:
        found = unfilled.execute(
            "SELECT text_key, first_position, last_position FROM context_matches($p, how := $how) ORDER BY ALL",
            {"p": pattern, "how": how},
        ).fetchall()
        expected = {(i, *span) for i, tokens in enumerate(texts) for span in find_spans(tokens, pattern, how)}
        assert found == sorted(expected)


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 1),
        st.lists(st.sampled_from([0.0, 0.25, 1, 2, 3, 50]), min_size=6, max_size=6),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(["a", " a", "b", ""]), min_size=6, max_size=6), min_size=3, max_size=3),
    records=RECORDS,
    added=st.integers(0, 40),
    k=st.integers(0, 5),
    layer=st.sampled_from([None, 0, 1]),
)
def test_the_hits_that_are_looked_for_have_the_k_best_among_them(
    unfilled: duckdb.DuckDBPyConnection,
    texts: list[list[str]],
    records: list[tuple[int, int, list[float]]],
    added: int,
    k: int,
    layer: int | None,
) -> None:
    write_texts(unfilled, texts)
    unfilled.execute("DELETE FROM context_records")
    unfilled.execute("CREATE OR REPLACE TABLE context_staged AS FROM context_records")
    rows = []
    for unit, (text, of_layer, values) in enumerate(records):
        active = [i for i, value in enumerate(values) if value > 0]
        rows.append((text, of_layer, unit, active, [values[i] for i in active]))
    for batch in filter(None, (rows[:added], rows[added:])):
        unfilled.execute("DELETE FROM context_staged")
        for table in ("context_records", "context_staged"):
            unfilled.executemany(
                f"INSERT INTO {table} (text_key, layer, unit, active_positions, active_values) VALUES (?, ?, ?, ?, ?)",
                batch,
            )
        contexts._raise(unfilled, "context_staged")
    expected = sorted(
        (
            (-max(values[first : last + 1]), unit, first, last)
            for unit, (text, of_layer, values) in enumerate(records)
            if layer in (None, of_layer)
            for first, last in find_spans(texts[text], "a", "phrase")
            if max(values[first : last + 1]) > 0
        ),
    )
    maxima = np.zeros((3, 6), np.float32)
    for text, _, values in records:
        maxima[text] = np.maximum(maxima[text], values)
    assert unfilled.execute("SELECT max_activations FROM context_texts ORDER BY text_key").fetchall() == [
        (row,) for row in maxima.tolist()
    ]
    found = unfilled.execute(
        "SELECT -h.activation, r.unit, h.first_position, h.last_position "
        "FROM context_hits('a', k := $k, layer := $layer) AS h INNER JOIN context_records AS r ON r.rowid = h.record "
        "ORDER BY ALL",
        {"k": k, "layer": layer},
    ).fetchall()
    assert found[:k] == expected[:k]
    assert set(found) <= set(expected)


def test_hits_beyond_the_strongest_matches_are_found_where_those_have_too_few(
    unfilled: duckdb.DuckDBPyConnection,
) -> None:
    write_texts(unfilled, [["a"]] * 120)
    unfilled.execute(
        "CREATE OR REPLACE TABLE context_records AS FROM (FROM context_records LIMIT 0) UNION ALL BY NAME SELECT "
        "range AS text_key, 0 AS layer, range AS unit, [0] AS active_positions, [50] AS active_values FROM range(119) "
        "UNION ALL BY NAME SELECT text_key, 1 AS layer, unit, [0] AS active_positions, [value] AS active_values "
        "FROM (VALUES (3, 200, 2), (119, 201, 1)) AS _(text_key, unit, value)"
    )
    contexts._raise(unfilled, "context_records")
    found = unfilled.execute(
        "SELECT r.unit FROM context_hits('a', k := 2, layer := 1) AS h "
        "INNER JOIN context_records AS r ON r.rowid = h.record ORDER BY ALL"
    ).fetchall()
    assert found == [(200,), (201,)]

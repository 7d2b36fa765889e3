"""The viewer's pages as they are sent: what they say, and that no token can do anything but be read."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote

import httpx
import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

import warehouse
from tests.builds import build, register_small, write_units
from tests.server.conftest import Served
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake
from warehouse.pairs import unflatten_pairs
from warehouse.plan import Selection
from warehouse.records import ActivationRecord, NeuronRecord
from warehouse.server.app import make_routes
from warehouse.server.charts import draw_frame, draw_histogram
from warehouse.server.rendering import number, visible, visible_token
from warehouse.server.settings import ServeSettings
from warehouse.server.shading import LEVELS, shade_of, show_record

SCRIPT = "<script>alert(1)</script>"
HOSTILE = [
    SCRIPT,
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "\u202eabc\u2066",
    "nul\0",
    "\ufffd",
    "\u2028",
    "\u0301accent",
    "\x1b[31m",
    "a/../b?c=d&e#f%00",
    " Paris",
    "\n",
    "",
]
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
HEAD = "gpt2-small/attn_write_norm"
NEURON = "gpt2-xl/mlp_post_act/0/0"


@dataclass
class Page(HTMLParser):
    """What a browser makes of a page: its elements in order, its text, and where its links lead."""

    html: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self, convert_charrefs=True)
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def links(self) -> list[str]:
        return [str(a["href"]) for a in self.find("a") if "href" in a]


@pytest.fixture(scope="module")
def hostile_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of two units whose tokens are all hostile; the second has negative activations."""
    root = tmp_path_factory.mktemp("hostile")
    lake = Lake(root / "lake")
    dataset = register_small(lake)
    values = np.linspace(8, 1, len(HOSTILE), dtype=np.float32)
    units = [(0, unit, NeuronRecord(0, unit, [ActivationRecord(HOSTILE, values * (-1) ** unit)])) for unit in (0, 1)]
    units += [(0, 2, NeuronRecord(0, 2, [ActivationRecord(HOSTILE, values[::-1].copy())]))]
    write_units(root / "tree", dataset, units)
    build(lake, root / "tree", [dataset.key])
    build_catalogue(lake)
    return lake


@pytest.fixture(scope="module")
def hostile(hostile_lake: Lake) -> TestClient:
    """The viewer of `hostile_lake`, without the processes for SQL."""
    return TestClient(make_routes(ServeSettings(str(hostile_lake.root))), follow_redirects=False)


def get(client: httpx.Client | TestClient, path: str, status: int = 200) -> Page:
    answer = client.get(path)
    assert answer.status_code == status, (path, answer.text[:500])
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)


def assert_harmless(page: Page) -> None:
    """Hold that a page has the viewer's one script, no style or handler in an attribute, and nothing unseen."""
    scripts = page.find("script")
    assert [str(script["src"]).split("?")[0] for script in scripts] == ["/static/viewer.js"]
    assert not page.find("img")
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
    assert {c for c in page.html if unicodedata.category(c) in UNSEEN} <= {"\n"}


@pytest.mark.parametrize(
    "path",
    ["/", "/unit/toy/mlp/0/0", "/unit/toy/mlp/0/1", "/unit/toy/mlp/0/0/top/0", "/units/toy/mlp/0"]
    + ["/compare?unit=toy/mlp/0/0&unit=toy/mlp/0/2"]
    + [f"/token?token={quote(token, safe='')}" for token in HOSTILE],
)
def test_hostile_tokens_are_text_and_nothing_else_on_every_page(hostile: TestClient, path: str) -> None:
    assert_harmless(get(hostile, path))


def test_every_token_of_a_record_is_shown_with_its_exact_value_and_leads_to_its_page(
    hostile: TestClient, hostile_lake: Lake
) -> None:
    page = get(hostile, "/unit/toy/mlp/0/0/top/0")
    with warehouse.open(hostile_lake.root) as reader:
        (record,) = reader.neuron_record("toy/mlp/0/0").most_positive_activation_records
    titles = [span["title"] for span in page.find("span") if "title" in span]
    assert [np.float32(title or "") for title in titles] == record.activations.tolist()
    led = [unquote(link.removeprefix("/token?token=")) for link in page.links if link.startswith("/token?token=")]
    assert led == HOSTILE


def test_a_token_page_names_the_units_that_are_active_on_exactly_that_token(hostile: TestClient) -> None:
    for token in HOSTILE:
        page = get(hostile, f"/token?token={quote(token, safe='')}&by=max")
        units = [link for link in page.links if link.startswith("/unit/")]
        assert sorted(units) == ["/unit/toy/mlp/0/0", "/unit/toy/mlp/0/2"], token


def test_negative_activations_have_a_class_of_their_own(hostile: TestClient) -> None:
    page = get(hostile, "/unit/toy/mlp/0/1")
    shaded = [str(span.get("class")) for span in page.find("span") if "title" in span]
    assert shaded[0] == "l20 n"
    assert all(shade.endswith(" n") for shade in shaded)


@given(st.text(max_size=80))
def test_whatever_a_token_is_nothing_unseen_is_left_of_it(token: str) -> None:
    for shown in (visible(token), visible_token(token)):
        assert not [c for c in shown if unicodedata.category(c) in UNSEEN]
    assert visible_token(token)


def test_the_outer_spaces_of_a_token_are_seen() -> None:
    assert [visible_token(token) for token in (" Paris", "Paris ", "  ", "", "a b")] == [
        "␣Paris", "Paris␣", "␣␣", "∅", "a b",
    ]  # fmt: skip


def test_shades_grow_with_the_activation_and_the_largest_has_the_last() -> None:
    levels = [int((shade_of(value, 8.0) or "l0")[1:]) for value in np.linspace(0, 8, 200)]
    assert levels == sorted(levels) and {*levels} == {*range(LEVELS + 1)}
    assert shade_of(3.0, 0.0) == shade_of(None, 8.0) == ""


def test_a_long_record_is_shown_around_its_strongest_token() -> None:
    activations = np.zeros(1_000, np.float32)
    activations[700] = 5
    tokens = [str(position) for position in range(1_000)]
    row = {"section": "top", "quantile": None, "rank": 0, "max_activation": 5.0}
    shown = show_record({**row, "tokens": tokens, "activations": activations.tolist()}, 5.0, is_pair=False)
    (strongest,) = [text for shade, _, text in shown.spans if shade]
    assert strongest == "700" == tokens[shown.argmax]
    assert shown.spans[0][2] == str(shown.first) and len(shown.spans) < 300


def test_a_map_of_pairs_has_every_cell_at_its_query_and_key() -> None:
    # Two queries, three values: (0, 0), (1, 0), (1, 1).
    row = {"section": "top", "quantile": None, "rank": 0, "max_activation": 1.0}
    shown = show_record(
        {**row, "tokens": ["a", "b"], "activations": [0.25, -1.0, 0.5]}, 1.0, is_pair=True, is_alone=True
    )
    assert shown.pairs is not None
    assert [(c.query, c.key, c.shade, c.value) for c in shown.pairs.strongest] == [
        (1, 0, "l20 n", "-1.0"), (1, 1, "l10", "0.5"), (0, 0, "l5", "0.25"),
    ]  # fmt: skip
    assert dict(shown.pairs.areas) == {
        "l10": "M0 0h1v1h-1z", "l14": "M1 1h1v1h-1z", "l20 n": "M0 1h1v1h-1z",
    }  # fmt: skip
    assert [value for _, value, _ in shown.spans] == ["0.25", "-1.0"]


def test_a_unit_that_is_not_there_gets_its_reason_and_its_nearest_neighbours(served: Served) -> None:
    page = get(served.client, "/unit/gpt2-xl/mlp_post_act/0/3000", 404)
    assert "was not built yet" in page.text
    assert "/unit/gpt2-xl/mlp_post_act/0/6" in page.links
    page = get(served.client, "/unit/gpt2-xl/mlp_pst_act/0/4", 404)
    assert "no known dataset" in page.text
    assert "/unit/gpt2-xl/mlp_post_act/0/4" in page.links


def test_an_explanation_of_a_unit_whose_file_is_not_there_leads_to_all_that_is_said_of_it(served: Served) -> None:
    absent = "gpt2-small/mlp_post_act/0/3"
    with warehouse.open(served.lake.root) as reader:
        explained = reader.sql("SELECT explanation, score FROM explanations WHERE unit_id = $u", {"u": absent})
        rejected = reader.sql("SELECT DISTINCT unit_id FROM related_units ANTI JOIN units USING (unit_id)")["unit_id"]
    text, score = explained.row(0)
    assert f"/unit/{absent}" in get(served.client, f"/explanations?q={quote(text)}").links
    page = get(served.client, f"/unit/{absent}", 404)
    assert "is absent" in page.text and text in page.text and number(score) in page.text
    assert "/unit/gpt2-small/mlp_post_act/0/2" in page.links
    assert_harmless(page)
    assert "Related by weights" in get(served.client, f"/unit/{rejected[0]}", 404).text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/unit/gpt2-xl/mlp_post_act/0/99999999999999999999", 422),
        ("/unit/gpt2-xl/mlp_post_act/x/0", 422),
        (f"/unit/{NEURON}?k=0", 422),
        (f"/unit/{NEURON}/top/900", 404),
        (f"/unit/{NEURON}/best/0", 422),
        ("/units/gpt2-xl/mlp_post_act/47", 404),
        ("/token", 422),
        ("/token?token=a&by=luck", 422),
        ("/compare?unit=nonsense", 404),
        (f"/compare?{'&'.join(f'unit=gpt2-xl/mlp_post_act/0/{n}' for n in range(7))}", 400),
        ("/explanations?q=a&min_score=much", 400),
        ("/explanations?q=(&how=regex", 200),
    ],
)
def test_what_cannot_be_shown_is_said_on_a_page(served: Served, path: str, status: int) -> None:
    page = get(served.client, path, status)
    assert_harmless(page)
    assert "problem" in [attributes.get("class") for attributes in page.find("p")]


@pytest.mark.parametrize(
    "path", ["/", f"/unit/{NEURON}", "/token?token=a", "/compare", "/token", "/unit/toy/mlp/0/0", "/x"]
)
def test_head_gives_the_headers_that_get_gives_and_no_body(served: Served, path: str) -> None:
    html = {"Accept": "text/html"}
    asked, got = served.client.head(path, headers=html), served.client.get(path, headers=html)
    assert asked.status_code == got.status_code
    assert (asked.content, len(got.content) > 500) == (b"", True)
    assert {**asked.headers, "date": ""} == {**got.headers, "date": ""}


@pytest.mark.parametrize("path", ["/x", "/unit", "/unit/gpt2-xl", "/data/x/0/0.json", "/static/x", "/x%00%0a<b>"])
def test_a_path_without_anything_is_a_page_to_browsers_and_a_problem_document_to_programs(
    served: Served, path: str
) -> None:
    browser = served.client.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (browser.status_code, browser.headers["content-type"]) == (404, "text/html; charset=utf-8")
    page = Page(browser.text)
    assert_harmless(page)
    assert "nothing is at this path" in page.text and "/" in page.links
    program = served.client.get(path)
    assert (program.status_code, program.headers["content-type"]) == (404, "application/problem+json")
    assert {browser.headers["vary"], program.headers["vary"]} == {"Accept"}


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v1/units/gpt2-xl/mlp_post_act/0/999", "/data/collated-activations/0/999.json"]
)
def test_the_api_and_the_file_tree_answer_browsers_too_in_their_own_form(served: Served, path: str) -> None:
    answer = served.client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_an_error_of_the_server_is_a_page_to_browsers_and_a_problem_document_to_programs(hostile_lake: Lake) -> None:
    # No process for SQL was started, and so asking one is an error that no handler foresees.
    routes = make_routes(ServeSettings(str(hostile_lake.root)))
    client = TestClient(routes, raise_server_exceptions=False)
    browser = client.get("/sql?q=SELECT+1", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (browser.status_code, browser.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert_harmless(Page(browser.text))
    assert "the server met an error" in browser.text and "sandbox" not in browser.text
    program = client.get("/sql?q=SELECT+1")
    assert (program.status_code, program.headers["content-type"]) == (500, "application/problem+json")


def test_a_unit_page_leads_to_the_units_beside_it_whatever_shards_they_are_in(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    dataset = register_small(lake, shard_units=4)
    units = [0, 1, 4, 23]
    write_units(tmp_path, dataset, [(2, unit, NeuronRecord(2, unit, mean=0.5)) for unit in units])
    write_units(tmp_path, dataset, [(1, 5, NeuronRecord(1, 5, mean=0.5))])
    build(lake, tmp_path, [dataset.key], Selection((1, 2), tuple(range(24))))
    build_catalogue(lake)
    client = TestClient(make_routes(ServeSettings(str(lake.root))))
    for unit in units:
        links = {a["rel"]: a["href"] for a in get(client, f"/unit/toy/mlp/2/{unit}").find("a") if "rel" in a}
        at = units.index(unit)
        expected = {"prev": units[at - 1 : at], "next": units[at + 1 : at + 2]}
        assert links == {rel: f"/unit/toy/mlp/2/{near[0]}" for rel, near in expected.items() if near}


def test_a_layers_page_counts_rows_and_not_the_numbers_of_units(served: Served) -> None:
    with warehouse.open(served.lake.root) as reader:
        units = reader.sql("SELECT unit FROM units WHERE model = 'gpt2-xl' AND layer = 0 ORDER BY unit")["unit"]
    page = get(served.client, "/units/gpt2-xl/mlp_post_act/0")
    assert f"Rows 1 to {len(units)} of {len(units)}." in page.text
    page = get(served.client, "/units/gpt2-xl/mlp_post_act/0?first=2")
    assert f"Rows 3 to {len(units)} of {len(units)}." in page.text
    past = get(served.client, f"/units/gpt2-xl/mlp_post_act/0?first={len(units)}", 404)
    assert f"the list ends before row {len(units) + 1}" in past.text


def test_a_unit_page_says_what_the_lake_says(served: Served) -> None:
    page = get(served.client, f"/unit/{NEURON}?k=1000")
    with warehouse.open(served.lake.root) as reader:
        record = reader.neuron_record(NEURON)
        explanation = reader.sql("SELECT explanation FROM explanations WHERE unit_id = $u", {"u": NEURON})
        tokens, similar = reader.top_tokens(NEURON, 24), reader.similar_units(NEURON, 12)
        related = reader.sql("SELECT related_unit_id FROM related_units WHERE unit_id = $u", {"u": NEURON})
    shown = [span["title"] for span in page.find("span") if "title" in span]
    sections = [record.most_positive_activation_records, *reversed(record.random_sample_by_quantile or [])]
    values = [v for records in (*sections, record.random_sample) for r in records for v in r.activations.tolist()]
    assert [np.float32(title or "") for title in shown] == values
    assert explanation["explanation"][0] in page.text and "GELU" in page.text
    assert {f"/token?token={quote(token, safe='')}" for token in tokens["token"]} <= {*page.links}
    assert {f"/unit/{unit_id}" for unit_id in similar["unit_id"]} <= {*page.links}
    assert f"/unit/{related['related_unit_id'][0]}" in page.links
    assert "/unit/gpt2-xl/mlp_post_act/0/1" in page.links


def test_a_heads_page_draws_its_pairs_and_how_far_back_it_looks(served: Served) -> None:
    page = get(served.client, f"/unit/{HEAD}/0/0")
    assert "How far back it looks" in page.text
    maps = [svg for svg in page.find("svg") if svg.get("class") == "map"]
    texts = [p for p in page.find("p") if p.get("class") == "text"]
    assert len(maps) == len(texts) > 0
    assert any("→" in text for text in page.texts)


def test_a_heads_record_has_every_pair_that_is_not_zero_in_a_table(served: Served) -> None:
    page = get(served.client, f"/unit/{HEAD}/0/0/top/0")
    with warehouse.open(served.lake.root) as reader:
        record = reader.neuron_record(f"{HEAD}/0/0").most_positive_activation_records[0]
    queries, keys = unflatten_pairs(len(record.tokens), len(record.activations))
    values = record.activations.tolist()
    expected = {(q, k): v for q, k, v in zip(queries.tolist(), keys.tolist(), values, strict=True) if v}
    rows = re.findall(
        r'<tr><td class="number">(\d+)</td>.*?<td class="number">(\d+)</td>.*?"value [^"]*">([^<]*)', page.html
    )
    assert {(int(q), int(k)): np.float32(v) for q, k, v in rows} == expected
    assert len(rows) == len(expected) > len(record.tokens)
    assert f"All {len(expected):,} pairs that are not 0" in page.text


def test_a_table_of_pairs_ends_and_says_so() -> None:
    n_tokens = 120
    values = np.arange(1, n_tokens * (n_tokens + 1) // 2 + 1, dtype=np.float32)
    row = {"section": "top", "quantile": None, "rank": 0, "max_activation": 1.0}
    shown = show_record({**row, "tokens": ["a"] * n_tokens, "activations": values}, 1.0, is_pair=True, is_alone=True)
    assert shown.pairs is not None
    assert shown.pairs.n_active == len(values) > len(shown.pairs.table) == 5_000
    assert [float(pair.value) for pair, _, _ in shown.pairs.table] == values[:-5_001:-1].tolist()


def test_the_heat_map_of_a_token_has_the_best_unit_of_each_layer(served: Served) -> None:
    with warehouse.open(served.lake.root) as reader:
        token = reader.sql("SELECT token FROM vocabulary ORDER BY n_units DESC, token LIMIT 1")["token"][0]
        best = reader.top_units(token, 100_000, by="relative").unique(["model", "component", "layer"], keep="first")
    page = get(served.client, f"/token?token={quote(token, safe='')}")
    titles = [re.fullmatch(r"\d+ units; best (.*)", str(a.get("title"))) for a in page.find("a")]
    assert {m[1] for m in titles if m} == {*best["unit_id"]}


def test_the_search_tells_units_tokens_phrases_and_explanations_apart(served: Served) -> None:
    client = served.client
    assert client.get(f"/search?q={NEURON}").headers["location"] == f"/unit/{NEURON}"
    assert client.get(f"/search?q=+{NEURON}.json").headers["location"] == f"/unit/{NEURON}"
    assert client.get('/search?q="+the"').headers["location"] == "/token?token=%20the"
    for short in ("mlp_post_act/0/0", "gpt2-xl 0 0", "L0N0", "l0.0"):
        assert f"/unit/{NEURON}" in get(client, f"/search?q={quote(short)}").links, short
    with warehouse.open(served.lake.root) as reader:
        word = reader.sql("SELECT token FROM vocabulary WHERE token SIMILAR TO ' [a-z]{4,}' ORDER BY ALL")["token"][0]
        hit = reader.contexts(word.strip(), "substring", 1).row(0, named=True)
        words = reader.sql("SELECT explanation FROM explanations WHERE unit_id = $u", {"u": NEURON}).item()
    page = get(client, f"/search?q={word.strip()}")
    assert f"/token?token={quote(word)}" in page.links
    assert f"/unit/{hit['unit_id']}" in page.links
    assert f"/unit/{NEURON}" in get(client, f"/search?q={quote(words)}").links
    assert f"/unit/{NEURON}" in get(client, f"/explanations?q={quote(words)}").links
    assert_harmless(get(client, f"/search?q={quote(SCRIPT)}"))


def test_a_comparison_has_the_likeness_that_similar_units_has(served: Served) -> None:
    with warehouse.open(served.lake.root) as reader:
        other, score = reader.similar_units(NEURON, 1).select("unit_id", "score").row(0)
    page = get(served.client, f"/compare?unit={NEURON}&unit={other}")
    assert f"{score:.4g}" in page.text
    with warehouse.open(served.lake.root) as reader:
        strongest = reader.top_tokens(other, 1)
    assert number(strongest["max_activation"][0]) in page.text
    added = served.client.get(f"/compare?unit={NEURON}&add=+{other}")
    assert unquote(added.headers["location"]) == f"/compare?unit={NEURON}&unit={other}"
    dropped = served.client.get(f"/compare?unit={NEURON}&unit={other}&drop={NEURON}")
    assert unquote(dropped.headers["location"]) == f"/compare?unit={other}"


def test_sql_is_answered_as_a_table_with_links_and_as_a_chart(served: Served) -> None:
    query = f"SELECT unit_id, max_activation, '{SCRIPT}' AS \"<b>\" FROM units WHERE unit_id = '{NEURON}'"
    page = get(served.client, f"/sql?q={quote(query)}")
    assert_harmless(page)
    assert f"/unit/{NEURON}" in page.links and SCRIPT in page.text and "<b>" in page.text
    assert [svg["class"] for svg in page.find("svg")] == ["chart"]


def test_sql_that_is_wrong_or_refused_gets_its_reason_and_keeps_its_text(served: Served) -> None:
    for query in ("SELECT nonsense", "DROP TABLE vocabulary", "FROM read_text('/etc/passwd')"):
        page = get(served.client, f"/sql?q={quote(query)}", 400)
        assert query in page.text and "root:" not in page.text
        assert "alert" in [attributes.get("role") for attributes in page.find("p")]


def test_a_page_is_sent_again_only_where_it_changed_and_compressed_where_asked(served: Served) -> None:
    first = served.client.get(f"/unit/{NEURON}", headers={"Accept-Encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    tag = {"If-None-Match": first.headers["etag"], "Accept-Encoding": "gzip"}
    assert served.client.get(f"/unit/{NEURON}", headers=tag).status_code == 304


def test_an_empty_lake_has_pages_too(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    register_small(lake)
    build_catalogue(lake)
    client = TestClient(make_routes(ServeSettings(str(lake.root))))
    for path, status in (("/", 200), ("/token?token=a", 200), ("/unit/toy/mlp/0/0", 404), ("/compare", 200)):
        assert_harmless(get(client, path, status))


def test_the_page_of_the_api_names_every_operation_and_parameter_of_its_document(served: Served) -> None:
    page = get(served.client, "/api")
    for path, methods in served.client.get("/api/v1/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in page.texts
            assert {parameter["name"] for parameter in operation.get("parameters", ())} <= {*page.texts}


def test_every_internal_link_of_the_start_page_is_answered(served: Served) -> None:
    page = get(served.client, "/")
    for path in {link for link in page.links if link.startswith("/")}:
        assert served.client.get(path).status_code == 200, path


@pytest.mark.parametrize(
    ("frame", "form"),
    [
        (pl.DataFrame({"unit_id": ["a", "b"], "score": [1.0, -2.0]}), "bars"),
        (pl.DataFrame({"layer": [0, 1, 2], "n": [3, 1, 2]}), "line"),
        (pl.DataFrame({"a": [2.0, 1.0, 3.0], "b": [1.0, 1.0, float("nan")]}), "points"),
        (pl.DataFrame({"token": ["a", "b"]}), None),
        (pl.DataFrame({"n": []}, schema={"n": pl.Int64}), None),
        (pl.DataFrame({"x": ["a"], "y": [float("inf")]}), None),
        (pl.DataFrame({"x": ["a"] * 3, "y": [5e-324] * 3}), "bars"),
        (pl.DataFrame({"x": ["a", "b"], "y": [1e308, -1e308]}), "bars"),
        (pl.DataFrame({"x": [-1e308, 0.0, 1e308], "y": [0.0, 5e-324, 1e308]}), "line"),
        (pl.DataFrame({"x": [1.0, 1.0 + 2**-52], "y": [1e16, 1e16 + 2]}), "points"),
    ],
)
def test_a_chart_suits_the_columns_of_the_answer(frame: pl.DataFrame, form: str | None) -> None:
    chart = draw_frame(frame)
    assert (chart and chart.form) == form
    if chart:
        left, top, right, bottom = chart.plot
        assert all(left - 1 <= mark.x <= right + 1 and top - 1 <= mark.y <= bottom + 1 for mark in chart.marks)
        assert all(
            np.isfinite([mark.width, mark.height, *(t.place for t in chart.x_ticks)]).all() for mark in chart.marks
        )


def test_a_histogram_has_room_between_the_nearest_of_floats() -> None:
    for low in (np.float32(0), np.float32(1), np.float32(-3e38)):
        chart = draw_histogram(np.array([low, np.nextafter(low, np.float32(3e38))], np.float32), "tokens")
        assert chart is not None and len(chart.marks) == 2

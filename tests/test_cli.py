"""The command line as its user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.builds import Mirror, Run, build
from warehouse import cli
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake
from warehouse.mirror import FAMOUS_TOKEN
from warehouse.output import printable

UNIT = "gpt2-xl/mlp_post_act/0/0"
HEAD = "gpt2-small/attn_write_norm/0/0"


def test_top_ranks_units_of_every_component_that_the_token_was_planted_in(run: Run) -> None:
    code, out, _ = run("top", FAMOUS_TOKEN, "-k", "50", "--format", "json")
    found = json.loads(out)
    assert code == 0
    per_token = {"mlp_post_act", "resid_delta_attn_ae_v4"} | {
        f"{place}_ae_{version}" for place in ("mlp_post_act", "resid_delta_mlp") for version in ("v1", "v4")
    }
    assert {row["component"] for row in found} == per_token
    assert [row["max_activation"] for row in found] == sorted((row["max_activation"] for row in found), reverse=True)


def test_top_of_an_unknown_token_names_the_ones_that_are_like_it(run: Run) -> None:
    code, out, err = run("top", FAMOUS_TOKEN.strip().lower())
    assert (code, out) == (1, "")
    assert repr(FAMOUS_TOKEN) in err
    assert len(err.splitlines()) == 1


def test_top_by_something_else_says_what_there_is(run: Run) -> None:
    code, _, err = run("top", FAMOUS_TOKEN, "--by", "loudness")
    assert code == 1
    assert "max, mean, relative or share" in err


def test_top_by_pair_finds_the_planted_pair(run: Run) -> None:
    code, out, _ = run("top", FAMOUS_TOKEN, "--key", " France", "--format", "json")
    assert code == 0
    assert {row["component"] for row in json.loads(out)} >= {"attn_write_norm"}


@pytest.mark.parametrize("unit_id", [UNIT, HEAD, "gpt2-small/resid_delta_attn_ae_v4_by_pair/0/0"])
def test_unit_draws_its_records(run: Run, unit_id: str) -> None:
    code, out, _ = run("unit", unit_id, "-k", "2")
    assert code == 0
    for title in (unit_id, "top records", "random sample", "max_activation", "records: 3 top"):
        assert title in out
    assert ("attends to" in out) == ("attn" in unit_id)
    assert "¹⁰" in out  # without colour, the strongest token carries its level


def test_unit_says_that_the_gelu_was_not_quite_right(run: Run) -> None:
    assert "optimised GELU" in run("unit", UNIT)[1]
    assert "optimised GELU" not in run("unit", "gpt2-small/mlp_post_act_ae_v4/0/0")[1]


def test_unit_as_json_is_the_neuron_record(run: Run, nine_mirror: Mirror) -> None:
    out = run("unit", UNIT, "--format", "json")[1]
    path = nine_mirror.root / "data/collated-activations/0/0.json"
    expected = json.loads(path.read_text())
    assert json.loads(out)["most_positive_activation_records"] == expected["most_positive_activation_records"]


@pytest.mark.parametrize(
    ("unit_id", "reason"),
    [
        ("gpt2-small/mlp_post_act/0/3", "is absent"),
        ("gpt2-xl/mlp_post_act/0/2", "is rejected"),
        ("gpt2-xl/mlp_post_act/7/2", "was not built yet"),
        ("gpt2-xl/mlp_post_act/7/99999", "out of range"),
        ("gpt3/mlp/0/0", "no known dataset"),
        ("gpt2-xl", "is not a unit_id"),
    ],
)
def test_a_unit_that_is_not_there_gets_one_line_that_says_why(run: Run, unit_id: str, reason: str) -> None:
    code, out, err = run("unit", unit_id)
    assert (code, out) == (1, "")
    assert reason in err
    assert len(err.splitlines()) == 1


def test_status_accounts_for_every_expected_file(run: Run) -> None:
    code, out, _ = run("status", "--format", "json")
    assert code == 0
    for row in json.loads(out):
        assert row["expected"] == sum(row[name] for name in ("ok", "absent", "rejected", "failed", "missing"))


def test_status_for_people_shows_what_is_built_and_why_files_were_rejected(run: Run) -> None:
    code, out, err = run("status")
    assert code == 0
    assert out.count("attn_write_norm") == 2
    assert "--all" in err
    assert err.count(" rejected: ") == 3


def test_sql_reads_from_stdin_and_prints_each_format(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    query = "SELECT unit_id, tokens, activations FROM unit_records('gpt2-xl/mlp_post_act/0/0') LIMIT 2"
    monkeypatch.setattr(sys, "stdin", io.StringIO(query))
    rows = json.loads(run("sql", "-", "--format", "json")[1])
    assert [row["unit_id"] for row in rows] == [UNIT, UNIT]
    as_csv = pl.read_csv(io.StringIO(run("sql", query, "--format", "csv")[1]))
    assert json.loads(as_csv["tokens"][0]) == rows[0]["tokens"]
    assert as_csv.columns == ["unit_id", "tokens", "activations"]


def test_sql_as_parquet_is_parquet(built_lake: Lake) -> None:
    command = [sys.executable, "-m", "warehouse", "sql", "FROM units", "--lake", built_lake.root, "--format", "parquet"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert pl.read_parquet(io.BytesIO(done.stdout)).height > 0
    assert done.stderr == b""


@pytest.mark.parametrize("query", ["COPY units TO 'x.csv'", "SELECT * FROM read_text('/etc/passwd')", "SELEC 1"])
def test_sql_that_is_refused_or_wrong_is_one_line_and_exit_code_1(run: Run, query: str) -> None:
    code, out, err = run("sql", query)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "root:" not in err


def test_check_passes_on_a_good_lake_and_fails_on_a_broken_one(run: Run, xl_mirror: Mirror, tmp_path: Path) -> None:
    assert run("check")[0] == 0
    lake = Lake(tmp_path)
    build(lake, xl_mirror.root, ["gpt2-xl"], xl_mirror.selection)
    build_catalogue(lake)
    (shard, *_) = lake.shards()
    Path(lake.part_path("units", shard)).unlink()
    build_catalogue(lake)
    code, out, err = run("check", "--lake", str(tmp_path), "--format", "json")
    assert code == 1
    assert {row["check"] for row in json.loads(out) if row["failing"]} >= {"files_match_units"}
    assert "files_match_units" in err


def test_export_writes_the_tree_again(run: Run, nine_mirror: Mirror, tmp_path: Path) -> None:
    code, out, err = run("export", "neuron-records", "gpt2-xl/mlp_post_act", "--out", str(tmp_path))
    assert (code, out) == (0, "")
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")}
    good = [u for u in nine_mirror.report.forms if u.model == "gpt2-xl"]
    assert written == {f"data/collated-activations/{u.layer}/{u.unit}.json" for u in good}
    assert f"{len(good)} files" in err


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["build", "gpt2-smal/mlp_post_act", "--source", "/"], 1, "did you mean gpt2-small/mlp_post_act"),
        (["build", "gpt2-xl", "--layers", "48", "--source", "/"], 1, "layers 0-47"),
        (["build", "gpt2-xl", "--units", "5-3", "--source", "/"], 1, "5-3"),
        (["build", "gpt2-xl", "--source", "/no/such/folder"], 1, "no folder /no/such/folder"),
        (["build", "gpt2-xl", "--source", "ftpp://x"], 1, "ftpp"),
        (["build"], 2, "Missing argument"),
        (["top", "x", "--format", "xml"], 2, "xml"),
        (["frobnicate"], 2, "frobnicate"),
        (["flatten", "gpt2-xl"], 1, "warehouse extract"),
        (["register", "/no/such.toml"], 1, "/no/such.toml"),
    ],
)
def test_wrong_use_says_what_is_wrong(run: Run, tmp_path: Path, arguments: list[str], code: int, hint: str) -> None:
    if arguments[0] == "build" and len(arguments) > 1:
        arguments = [*arguments, "--lake", str(tmp_path)]
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert hint in err
    assert "Traceback" not in err


def test_a_lake_that_is_not_there_says_how_to_build_one(run: Run, tmp_path: Path) -> None:
    code, _, err = run("status", "--lake", str(tmp_path / "none"))
    assert code == 1
    assert "warehouse build" in err


def test_debug_shows_the_traceback(run: Run) -> None:
    assert "Traceback" in run("unit", "nonsense", "--debug")[2]


def test_a_reader_that_stops_early_is_no_error(built_lake: Lake) -> None:
    command = (
        f"{sys.executable} -m warehouse sql 'FROM activations' --format json --lake '{built_lake.root}' | head -c 5"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.stdout == b'[{"mo'
    assert b"Traceback" not in done.stderr


def test_every_command_and_option_says_what_it_is_for(run: Run) -> None:
    import typer.main

    group = typer.main.get_command(cli.app)
    commands = dict(group.commands)  # type: ignore[attr-defined]
    commands |= commands.pop("export").commands
    for name, command in commands.items():
        assert command.help, name
        assert all(getattr(parameter, "help", "") for parameter in command.params if parameter.name != "help"), name
    assert set(commands) >= set(
        ["build", "extract", "flatten", "catalogue", "status", "top", "unit", "sql", "check", "demo", "register"]
    )


def test_the_query_that_the_help_of_sql_shows_lists_the_views(run: Run) -> None:
    (query,) = re.findall(r'"(SELECT[^"]+)"', cli.sql.__doc__ or "")
    code, out, _ = run("sql", query, "--format", "json")
    assert code == 0
    assert {"units", "records", "token_stats"} <= {row["view_name"] for row in json.loads(out)}


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" Paris", " Paris"),
        ("\n", "↵"),
        ("\x1b[31m", "\\u001b[31m"),
        ("\u202egro", "\\u202egro"),
        ("\U000e0041", "\\U000e0041"),
        ("é�", "é�"),
    ],
)
def test_no_token_reaches_the_terminal_as_a_control(token: str, shown: str) -> None:
    assert printable(token) == shown


def test_hostile_tokens_are_drawn_and_not_obeyed(run: Run, tmp_path: Path) -> None:
    mirror = tmp_path / "data/collated-activations/0"
    mirror.mkdir(parents=True)
    record = {"tokens": ["\x1b]0;owned\x07", "[red]x[/red]", "\u202e", "\0"], "activations": [1, 2, 3, 4]}
    (mirror / "0.json").write_text(
        json.dumps({"random_sample": [record], "most_positive_activation_records": [record]})
    )
    from warehouse.plan import Selection

    lake = Lake(tmp_path / "lake")
    build(lake, tmp_path, ["gpt2-xl"], Selection((0,), (0,)))
    build_catalogue(lake)
    code, out, _ = run("unit", UNIT, "--lake", lake.root)
    assert code == 0
    assert "\x1b]" not in out
    assert "\u202e" not in out
    assert "[red]x[/red]" in out


def test_a_ranking_without_a_figure_to_rank_by_says_so(run: Run, built_lake: Lake) -> None:
    query = "SELECT token FROM token_stats GROUP BY token HAVING sum(n_random) = 0 ORDER BY token LIMIT 1"
    (row,) = json.loads(run("sql", query, "--format", "json")[1])
    code, out, err = run("top", row["token"], "--by", "mean")
    assert (code, out) == (1, "")
    assert "no random sample has it" in err
    assert "--by max" in err
    code, _, err = run("top", FAMOUS_TOKEN, "--model", "gpt2-xl", "--layer", "40")
    assert code == 1
    assert "nothing of --model gpt2-xl, --layer 40 was built yet" in err
    query = (
        "SELECT token FROM token_index GROUP BY token "
        "HAVING min(component) = 'mlp_post_act' AND max(component) = 'mlp_post_act' ORDER BY token LIMIT 1"
    )
    (row,) = json.loads(run("sql", query, "--format", "json")[1])
    code, _, err = run("top", row["token"], "--component", "mlp_post_act_ae_v1")
    assert code == 1
    assert "others are" in err


@pytest.mark.parametrize("value", ["MAP {1: 2}", "DATE 'infinity'", "'a'::BLOB", "DATE '2020-01-01'", "INTERVAL 1 DAY"])
@pytest.mark.parametrize("form", ["table", "json", "csv", "parquet"])
def test_a_column_of_an_odd_type_is_printed_or_refused_in_one_line(run: Run, value: str, form: str) -> None:
    code, out, err = run("sql", f"SELECT {value} AS x", "--format", form)
    assert code in (0, 1)
    assert bool(out) == (code == 0)
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == code


def test_a_registered_dataset_is_in_the_catalogue_at_once(run: Run, xl_mirror: Mirror, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_mirror.root, ["gpt2-xl"], xl_mirror.selection)
    build_catalogue(lake)
    (tmp_path / "mine.toml").write_text(
        '[[dataset]]\nmodel = "mine"\ncomponent = "mlp"\nkind = "neuron"\nper = "token"\nn_layers = 1\n'
        'units_per_layer = 1\npaths = ["{layer}/{unit}.json"]\n'
    )
    assert run("register", str(tmp_path / "mine.toml"), "--lake", lake.root)[:2] == (0, "mine/mlp\n")
    out = run("sql", "SELECT kind FROM datasets WHERE model = 'mine'", "--lake", lake.root, "--format", "json")[1]
    assert json.loads(out) == [{"kind": "neuron"}]


def test_a_question_loads_nothing_that_only_builds_need(built_lake: Lake) -> None:
    script = (
        "import sys, warehouse\n"
        f"warehouse.open({built_lake.root!r}).top_units(' Paris')\n"
        "print(*{'aiohttp', 'numba', 'prefect', 'torch', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_similar_ranks_units_of_other_components_by_the_tokens_they_share(run: Run) -> None:
    code, out, _ = run("similar", UNIT, "--model", "gpt2-small", "--format", "json", "-k", "5")
    found = json.loads(out)
    assert code == 0
    assert 0 < len(found) <= 5
    assert {row["model"] for row in found} == {"gpt2-small"}
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)


def test_contexts_finds_what_fires_inside_a_phrase(run: Run) -> None:
    code, out, _ = run("contexts", FAMOUS_TOKEN, "--format", "json", "-k", "3")
    assert code == 0
    assert [row["matched"] for row in json.loads(out)] == [FAMOUS_TOKEN] * 3


def test_contexts_and_similar_are_drawn_for_people(run: Run) -> None:
    code, out, _ = run("contexts", FAMOUS_TOKEN, "-k", "2")
    assert code == 0
    assert out.count(f" «{FAMOUS_TOKEN.strip()}") == 2
    code, out, _ = run("similar", UNIT, "--model", "gpt2-small", "-k", "2")
    assert code == 0
    assert f"'{FAMOUS_TOKEN}'" in out and "█" in out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["contexts", "no such text"], "no text in which a unit is active holds 'no such text' as a phrase"),
        (["contexts", "Pari"], "as a part of their tokens: --how substring"),
        (["contexts", FAMOUS_TOKEN, "--component", "attn_write_norm"], "attn_write_norm is per token pair"),
        (["contexts", FAMOUS_TOKEN, "--layer", "7"], "nothing of --layer 7 was built yet: the lake has gpt2-small/"),
        (["similar", "gpt2-xl/mlp_post_act/7/2"], "was not built yet"),
        (["similar", UNIT, "--component", "mlp_post"], "did you mean mlp_post_act?"),
        (["similar", HEAD], "is of a dataset per token pair"),
        (["top", FAMOUS_TOKEN + "s"], f"like '{FAMOUS_TOKEN}s' are '{FAMOUS_TOKEN}'"),
        (["top", FAMOUS_TOKEN, "--key", " Farnce"], "like ' Farnce' are ' France'"),
        (["top", FAMOUS_TOKEN, "--component", "attn_write_norm"], "name the key token too, with --key"),
        (["top", FAMOUS_TOKEN, "--model", "gpt2-large"], "known are gpt2-small, gpt2-xl"),
        (["sql", "FROM unitz"], "Did you mean"),
    ],
)
def test_a_question_without_an_answer_is_one_line_that_says_what_there_is(
    run: Run, arguments: list[str], hint: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert hint in err


def test_an_empty_lake_says_how_to_fill_it(run: Run, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    (lake.home / "files").mkdir(exist_ok=True)
    for question in (["top", FAMOUS_TOKEN], ["contexts", FAMOUS_TOKEN], ["similar", UNIT], ["unit", UNIT]):
        code, out, err = run(*question, "--lake", lake.root)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "warehouse build gpt2-" in err

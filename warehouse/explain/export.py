"""Exporting any number of units, a shard of output at a time, so that a run that was killed goes on where it was.

A shard's files are written in a folder of their own, then moved into place one by one; its note in `.export/` is
written last, and is the commit. A shard of whose files one is gone, or of another size than noted, is written again.
`manifest.json` is written when all shards are there: with it the export is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from warehouse.errors import LakeError
from warehouse.explain.formats import (
    FormatName,
    FormatOptions,
    OutputShard,
    WriteShard,
    delphi,
    jsonl,
    neuronpedia,
    openai,
)
from warehouse.explain.units import Units, select_units
from warehouse.lake import FORMAT_VERSION
from warehouse.reader import LakeReader

EXPORT_VERSION = 2
"""Version of the forms' details and of the manifest."""
SHARD_UNITS = 256
_STATE = ".export"


@dataclass(frozen=True, slots=True)
class _Form:
    write_shard: WriteShard
    notes: tuple[str, ...]
    """What a reader of the files must know, for the manifest."""
    reads: tuple[str, ...] = ("records", "units", "token_stats", "pair_stats")
    """Tables of the lake that the form, or what chooses its examples, reads."""


_FORMS: Mapping[FormatName, _Form] = {
    "openai": _Form(openai.write_shard, openai.NOTES),
    "delphi": _Form(delphi.write_shard, delphi.NOTES),
    "neuronpedia": _Form(neuronpedia.write_shard, neuronpedia.NOTES, ("records", "units", "explanations", "answers")),
    "jsonl": _Form(jsonl.write_shard, jsonl.NOTES),
}

_PARTS = """
SELECT
  substr(p.path, $start) AS part,
  b.commit_mark
FROM parts AS p
LEFT JOIN explanation_parts AS b ON b.part = substr(p.path, $start) AND p.table_name = 'answers'
WHERE list_contains($tables, p.table_name)
ORDER BY part
"""
_FOLLOWS_FROM_THE_LAKE = {"n_units", "units_sha256", "commits_sha256"}
"""What of an export's plan no option changes, where the condition is the same."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export holds.

    Attributes:
        n_units: units that were written, in this run or before.
        n_unfit: units that were not.
        n_done_before: units of shards that an earlier run had done.
        reasons: unfit units by reason.
        counts: what else was counted.
    """

    n_units: int
    n_unfit: int
    n_done_before: int
    reasons: Mapping[str, int]
    counts: Mapping[str, int]


OnShard = Callable[[int, int], None]
"""Told after each shard how many units are done, of how many."""


def export_units(
    reader: LakeReader, where: str, form: FormatName, options: FormatOptions, out: Path, on_shard: OnShard
) -> ExportSummary:
    """Export the units for which a SQL condition holds; what an earlier run of the same export did is kept.

    Args:
        reader: of the lake.
        where: condition over the view `units`.
        form: which of the forms.
        options: what is asked of it.
        out: folder of the export, new or of the same export.
        on_shard: told of progress.

    Raises:
        QueryError: the condition is wrong SQL.
        LakeError: no unit is chosen, the folder is of another export, or cannot be written.
    """
    units = select_units(reader, where)
    if not units:
        raise LakeError(f"no unit of {reader.lake.url} is chosen by {where!r}")
    ((root,),) = reader.sql("SELECT root FROM catalogue").rows()
    plan = _plan(where, units, form, options, _hash_commits(reader, root, form))
    try:
        _begin(out, plan)
        done = n_done_before = 0
        for shard in cut_shards(units):
            note = out / _STATE / f"shard-{shard.number:06d}.json"
            if _is_whole(note, out):
                n_done_before += len(shard.units)
            else:
                _write_shard(reader, shard, form, options, out, note)
            done += len(shard.units)
            on_shard(done, len(units))
        summary = _finish(out, {**plan, "lake": root}, form, n_done_before)
    except OSError as e:
        raise LakeError(f"cannot export to {out}: {e.strerror or e}") from e
    return summary


def cut_shards(units: Units) -> Iterator[OutputShard]:
    """Cut units into runs of one layer each."""
    number = first = 0
    for _, run in groupby(units, lambda name: (name.model, name.component, name.layer)):
        n_units = sum(1 for _ in run)
        for number_in_layer, start in enumerate(range(first, first + n_units, SHARD_UNITS)):
            yield OutputShard(number, number_in_layer, units[start : min(start + SHARD_UNITS, first + n_units)])
            number += 1
        first += n_units


def _plan(where: str, units: Units, form: FormatName, options: FormatOptions, commits: str) -> dict[str, Any]:
    """Say what an export is of; two runs with the same plan write the same files."""
    selection = hashlib.sha256()
    for name in units:
        selection.update(f"{name}\n".encode())
    return {
        "format": form,
        "version": EXPORT_VERSION,
        "options": asdict(options.splits) | {"floor": options.floor},
        "where": where,
        "n_units": len(units),
        "units_sha256": selection.hexdigest(),
        "commits_sha256": commits,
        "schema_version": FORMAT_VERSION,
    }


def _hash_commits(reader: LakeReader, root: str, form: FormatName) -> str:
    """Hash which parts the form reads, of the catalogue that is open; of batches, and on a store, which version."""
    lake = reader.lake
    marks = {} if lake.is_local else {shard.part_name: mark for shard, mark in lake.marks().items()}
    parts = reader.sql(_PARTS, {"start": len(root) + 2, "tables": list(_FORMS[form].reads)}).rows()
    read = [(part, mark or marks.get(part.partition("/")[2])) for part, mark in parts]
    return hashlib.sha256(repr(read).encode()).hexdigest()


def _begin(out: Path, plan: Mapping[str, Any]) -> None:
    """Make the folder, or see that it is of the same export, and remove what a killed run left half written."""
    (out / _STATE).mkdir(parents=True, exist_ok=True)
    path = out / _STATE / "plan.json"
    if not path.exists():
        if others := [p.name for p in out.iterdir() if p.name != _STATE]:
            raise LakeError(f"{out} holds {sorted(others)[0]} and is no export: give an empty folder or a new one")
        _write_json(path, plan)
    earlier = json.loads(path.read_bytes())
    differing = [key for key in plan if earlier.get(key) != plan[key]]
    if differing and _FOLLOWS_FROM_THE_LAKE.issuperset(differing):
        raise LakeError(
            f"{out} holds an export, and the lake was built further since: give another folder, or remove it"
        )
    if differing:
        raise LakeError(
            f"{out} holds another export, that differs in {', '.join(differing)}: give another folder, or remove it"
        )
    for folder in (out / _STATE).glob("writing-*"):
        shutil.rmtree(folder)


def _is_whole(note: Path, out: Path) -> bool:
    """Say whether a shard was done, and all of its files are there still."""
    if not note.exists():
        return False
    sizes = orjson.loads(note.read_bytes())["files"]
    places = {out / name: size for name, size in sizes.items()}
    return all(place.is_file() and place.stat().st_size == size for place, size in places.items())


def _write_shard(
    reader: LakeReader, shard: OutputShard, form: FormatName, options: FormatOptions, out: Path, note: Path
) -> None:
    (out / "manifest.json").unlink(missing_ok=True)
    folder = out / _STATE / f"writing-{shard.number:06d}"
    folder.mkdir()
    written = _FORMS[form].write_shard(reader, shard, options, folder)
    if written.n_units + len(written.unfit) != len(shard.units):
        raise LakeError(
            f"units {shard.units[0]} to {shard.units[-1]} are no longer all in {reader.lake.url}: "
            "the lake was built again meanwhile, so export to a new folder"
        )
    sizes: dict[str, int] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        sizes[name.as_posix()] = path.stat().st_size
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    shutil.rmtree(folder)
    unfit = [{"unit_id": str(u.unit_id), "reason": u.reason} for u in written.unfit]
    _write_json(note, {"n_units": written.n_units, "counts": written.counts, "unfit": unfit, "files": sizes})


def _finish(out: Path, plan: Mapping[str, Any], form: FormatName, n_done_before: int) -> ExportSummary:
    """Add the shards' notes up into unfit.jsonl and manifest.json."""
    n_units = 0
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    temporary = out / _STATE / "unfit.jsonl"
    with temporary.open("wb") as lines:
        for path in sorted((out / _STATE).glob("shard-*.json")):
            note = orjson.loads(path.read_bytes())
            n_units += note["n_units"]
            counts.update(note["counts"])
            for unfit in note["unfit"]:
                reasons[unfit["reason"]] += 1
                lines.write(orjson.dumps(unfit, option=orjson.OPT_APPEND_NEWLINE))
    temporary.replace(out / "unfit.jsonl")
    summary = ExportSummary(n_units, reasons.total(), n_done_before, dict(reasons.most_common()), dict(counts))
    told = {
        "written": summary.n_units,
        "unfit": {"units": summary.n_unfit, "reasons": summary.reasons, "file": "unfit.jsonl"},
        "counts": summary.counts,
        "notes": _FORMS[form].notes,
    }
    _write_json(out / "manifest.json", {**plan, **told})
    return summary


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    temporary.replace(path)

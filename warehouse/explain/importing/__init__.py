"""Explanations that others made, taken into a lake as answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from warehouse.datasets import Dataset
from warehouse.decode.json import load_json
from warehouse.errors import MalformedFile
from warehouse.explain.answers import Answer, answer_key, find_fault, read_keys, write_answers
from warehouse.explain.importing.delphi import is_results_folder, iterate_results
from warehouse.explain.importing.files import ImportFailure, iterate_csv, iterate_json, read_head, read_start
from warehouse.explain.importing.neuronpedia import list_explanations, neuronpedia_reader
from warehouse.explain.importing.options import FORMS, Fields, Form, ImportOptions, ImportSummary, RowReader
from warehouse.explain.importing.rows import row_reader
from warehouse.explain.importing.simulations import RESULT_KEYS, simulation_reader
from warehouse.lake import Lake
from warehouse.records import LIMITS

__all__ = ["FORMS", "Form", "ImportFailure", "ImportOptions", "ImportSummary", "import_explanations"]

Found = tuple[str, list[Answer] | str]
"""Where something was found, and the answers that it is, or why it is none."""

_BATCH_ANSWERS = 20_000
_BATCH_CHARACTERS = 32 * 2**20
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
_READERS: Mapping[Form, Callable[[ImportOptions], RowReader]] = {
    "openai": simulation_reader,
    "neuronpedia": neuronpedia_reader,
    "csv": row_reader,
    "jsonl": row_reader,
}


def import_explanations(
    lake: Lake, path: Path, how: ImportOptions, refuse: Callable[[str, str], None]
) -> ImportSummary:
    """Take explanations in as answers; the next catalogue has them.

    What the lake has already is left as it is, so that an import may be repeated, or go on where it was killed.

    Args:
        lake: where to; it is made if it is not there.
        path: a file, or a folder of files.
        how: what the files do not say.
        refuse: called with the place and the reason of each row that is not taken.

    Raises:
        ImportFailure: there is no such file, or nothing in it could be taken.
        LakeError: the lake cannot be written.
    """
    if not path.exists():
        raise ImportFailure(f"no file or folder {path}")
    files: set[str] = set()
    n_new = n_known = n_refused = 0
    lake.create()
    known = lake.datasets()
    keys = read_keys(lake)
    added: set[int] = set()
    batch: list[Answer] = []
    n_characters = 0
    for where, found in _iterate(path, how, files):
        answers = found if isinstance(found, list) else []
        fault = found if isinstance(found, str) else next(filter(None, (_find_fault(a, known) for a in answers)), None)
        if fault:
            n_refused += 1
            refuse(where, fault)
            continue
        for answer in answers:
            key = answer_key(answer)
            if key in added or _contains(keys, key):
                n_known += 1
                continue
            added.add(key)
            batch.append(answer)
            n_characters += len(answer.explanation or "")
            if len(batch) >= _BATCH_ANSWERS or n_characters >= _BATCH_CHARACTERS:
                write_answers(lake, batch)
                n_new, batch, n_characters = n_new + len(batch), [], 0
    if batch:
        write_answers(lake, batch)
        n_new += len(batch)
    if not files:
        raise ImportFailure(f"no explanation in {path}: no file of explanations ({', '.join(_SUFFIXES)}) is there")
    if not n_new + n_known:
        raise ImportFailure(f"no explanation in {path}: {n_refused:,} rows in {len(files):,} files were refused")
    return ImportSummary(len(files), n_new, n_known, n_refused)


def _contains(keys: np.typing.NDArray[np.uint64], key: int) -> bool:
    at = int(np.searchsorted(keys, np.uint64(key)))
    return at < len(keys) and int(keys[at]) == key


def _find_fault(answer: Answer, known: Mapping[str, Dataset]) -> str | None:
    """Say why an answer is about no unit that can be in the lake, or cannot be kept."""
    unit = answer.unit_id
    dataset = known.get(f"{unit.model}/{unit.component}")
    if dataset is None or dataset.holds != "activations":
        names = ", ".join(sorted(key for key, d in known.items() if d.holds == "activations"))
        return f"{unit} is of no known dataset: known are {names}"
    if unit.layer >= dataset.n_layers or unit.unit >= dataset.units_per_layer:
        return (
            f"{unit} is out of range: {dataset.key} has layers 0-{dataset.n_layers - 1} with units "
            f"0-{dataset.units_per_layer - 1} each"
        )
    return find_fault(answer)


def _iterate(path: Path, how: ImportOptions, files: set[str]) -> Iterator[Found]:
    if how.form == "delphi" or (how.form is None and path.is_dir() and is_results_folder(path)):
        for where, found in iterate_results(path, how):
            if Path(where).is_file():
                files.add(where)
            yield where, found
        return
    readers = {form: make(how) for form, make in _READERS.items()}
    for file in _list_files(path):
        files.add(str(file))
        try:
            form = how.form or _guess(file)
            rows = iterate_csv(file, "explanation") if form == "csv" else iterate_json(file)
            for where, row in rows:
                yield where, row if isinstance(row, str) else _read_row(readers[form], row, str(file))
        except MalformedFile as e:
            yield str(file), str(e)


def _read_row(read: RowReader, row: Fields, file: str) -> list[Answer] | str:
    try:
        return read(row, file)
    except MalformedFile as e:
        return str(e)


def _list_files(path: Path) -> Iterable[Path]:
    """Give the files to be read, in order: none below a name with a dot, and of Neuronpedia's sources what is said."""
    if path.is_file():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.name.removesuffix(".gz").endswith(_SUFFIXES)
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    )
    return list_explanations(found)


def _guess(file: Path) -> Form:
    """Say what a file is by its name and its first line; a file whose line cannot be read is taken for plain rows."""
    if file.name.removesuffix(".gz").endswith((".csv", ".tsv")):
        return "csv"
    start = read_start(file)
    if not start.startswith((b"{", b"[")):
        return "csv" if start else "jsonl"
    try:
        value = load_json(start, LIMITS)
    except MalformedFile:  # the first line of a text of several: the names in it will do
        head = read_head(file)
        return _guess_by_keys({name for name in (*RESULT_KEYS, "modelId") if f'"{name}"'.encode() in head})
    first = value[0] if isinstance(value, list) and value else value
    return _guess_by_keys(set(first) if isinstance(first, dict) else set())


def _guess_by_keys(keys: set[str]) -> Form:
    if keys & set(RESULT_KEYS):
        return "openai"
    return "neuronpedia" if "modelId" in keys else "jsonl"

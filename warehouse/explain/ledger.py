"""The ledger: every answer that was paid for, kept in the lake as it comes, and given from there when asked for again.

Below `{lake}/completions/`, a layer of units has a folder, and what is written at one time is one Parquet file in it,
written to a temporary file and moved, or put on a store in one request: it is there whole or not at all. A file's name
says which units it is about and how many rows it has. From time to time small files are merged into larger ones. A
merged file is there before those that it replaces are removed, and no name is used twice, so that nobody who reads,
and no process that is killed, loses a row, whoever else writes or merges meanwhile; a row may be met twice.

What was asked is not kept but as a hash: it follows from the lake's records, the explainer and its options.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.errors import LakeError
from warehouse.explain.chat import Completion, Message, TokenLogprob
from warehouse.lake import Lake
from warehouse.records import UnitId
from warehouse.remote import store_errors

_SMALL_ROWS = 1_000
"""Rows from which a file is merged no more."""
_FILES_A_MERGE = 32
"""Files that this process writes for a layer between two merges of it."""
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)-[0-9a-f]{8}\.parquet")
_LOGPROB = [("token", pa.string()), ("logprob", pa.float64())]
_SCHEMA = pa.schema(
    [
        ("unit", pa.int32()),
        ("request", pa.string()),
        ("purpose", pa.string()),
        ("endpoint", pa.string()),
        ("answered_by", pa.string()),
        ("text", pa.string()),
        ("is_cut", pa.bool_()),
        ("logprobs", pa.list_(pa.struct([*_LOGPROB, ("top", pa.list_(pa.struct(_LOGPROB)))]))),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost", pa.float64()),
        ("answered_at", pa.timestamp("us", tz="UTC")),
        ("run_id", pa.string()),
    ]
)
_READ = ["unit", "request", "answered_by", "text", "is_cut", "logprobs", "prompt_tokens", "completion_tokens"]


@dataclass(frozen=True, slots=True)
class Paid:
    """An answer that was paid for.

    Attributes:
        unit_id: for which unit.
        request: what was asked, as `hash_request` gives it.
        completion: the answer.
        purpose: what for.
        endpoint: base URL of who was asked.
        cost: in the currency of the run's prices, None without prices.
        run_id: which run paid.
    """

    unit_id: UnitId
    request: str
    completion: Completion
    purpose: str
    endpoint: str
    cost: float | None
    run_id: str


def hash_request(
    url: str, model: str, messages: Sequence[Message], max_tokens: int, temperature: float, top_logprobs: int
) -> str:
    """Give the SHA-256 of all that an answer depends on, in hexadecimal."""
    conversation = [(message.role, message.content) for message in messages]
    asked = (url, model, conversation, max_tokens, float(temperature), top_logprobs)
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


class Ledger:
    """The paid answers of one lake, written by one run; on one event loop."""

    def __init__(self, lake: Lake) -> None:
        """Open the ledger of a lake that is there."""
        self._lake = lake
        self._waiting: list[Paid] = []
        self._writing = asyncio.Lock()
        self._n_written: Counter[str] = Counter()

    async def keep(self, paid: Paid) -> None:
        """Write an answer; when this returns, it is in the lake.

        Answers that come while others are written wait, and are then written together.

        Raises:
            LakeError: the lake cannot be written.
        """
        self._waiting.append(paid)
        async with self._writing:
            if any(each is paid for each in self._waiting):
                entries = list(self._waiting)
                await asyncio.to_thread(self._write, entries)
                del self._waiting[: len(entries)]

    def load(self, unit_ids: Collection[UnitId]) -> dict[str, Completion]:
        """Read the answers about some units, by what was asked.

        Raises:
            LakeError: the lake cannot be read, or a file of the ledger is damaged.
        """
        layers: defaultdict[str, set[int]] = defaultdict(set)
        for unit_id in unit_ids:
            layers[_folder(unit_id)].add(unit_id.unit)
        found: dict[str, Completion] = {}
        for folder, units in layers.items():
            for table in self._read_folder(folder, units):
                found |= {row["request"]: _completion(row) for row in table.to_pylist()}
        return found

    async def close(self) -> None:
        """Merge what this run has written into fewer files."""
        async with self._writing:
            for folder in self._n_written:
                await asyncio.to_thread(self._merge, folder)

    def _write(self, entries: Iterable[Paid]) -> None:
        layers: defaultdict[str, list[Paid]] = defaultdict(list)
        for paid in entries:
            layers[_folder(paid.unit_id)].append(paid)
        for folder, group in layers.items():
            self._put(folder, pa.Table.from_pylist([_row(paid) for paid in group], _SCHEMA))
            self._n_written[folder] += 1
            if self._n_written[folder] % _FILES_A_MERGE == 0:
                self._merge(folder)

    def _put(self, folder: str, rows: pa.Table) -> None:
        units = rows["unit"]
        name = f"{pc.min(units).as_py():06d}-{pc.max(units).as_py():06d}-{rows.num_rows}-{secrets.token_hex(4)}"
        with store_errors("write to the lake", self._lake.url):
            self._lake.write_batch(folder, name, rows)

    def _merge(self, folder: str) -> None:
        """Put a layer's small files together, in the order of their units."""
        names = {path: _NAME.search(path) for path in self._list(folder)}
        small = sorted(path for path, name in names.items() if name and int(name[3]) < _SMALL_ROWS)
        sources: list[str] = []
        tables: list[pa.Table] = []
        for path in small:
            if groups := self._read(path, _SCHEMA.names):
                sources.append(path)
                tables += groups
            if path != small[-1] and sum(table.num_rows for table in tables) < _SMALL_ROWS:
                continue
            if len(sources) > 1:
                self._put(folder, pa.concat_tables(tables).sort_by("unit"))
                for source in sources:
                    self._remove(source)
            sources, tables = [], []

    def _read_folder(self, folder: str, units: Collection[int]) -> Iterable[pa.Table]:
        """Read the rows of a layer's units, also while somebody merges.

        A file that is gone before it is read has been merged into one that a later listing shows. So it is listed
        until there is nothing new, and twice at least, since a listing may overlook both.
        """
        seen: set[str] = set()
        is_first = True
        while True:
            new = [path for path in self._list(folder) if path not in seen]
            if not new and not is_first:
                return
            is_first = False
            seen |= set(new)
            for path in new:
                name = _NAME.search(path)
                if name and any(int(name[1]) <= unit <= int(name[2]) for unit in units):
                    for table in self._read(path, _READ):
                        yield table.filter(pc.is_in(table["unit"], pa.array(sorted(units), pa.int32())))

    def _list(self, folder: str) -> list[str]:
        return list(self._lake.batches(folder))

    def _read(self, path: str, columns: list[str]) -> list[pa.Table]:
        try:
            return list(self._lake.iterate_batch(path, columns))
        except FileNotFoundError:  # merged by somebody meanwhile
            return []
        except (pa.ArrowException, OSError) as e:
            reason = str(e).partition("\n")[0]
            raise LakeError(f"{path} cannot be read: remove it, and what it held is asked again ({reason})") from e

    def _remove(self, path: str) -> None:
        with store_errors("write to the lake", self._lake.url), suppress(FileNotFoundError):
            self._lake.fs.rm_file(path)


def _folder(unit_id: UnitId) -> str:
    return f"completions/model={unit_id.model}/component={unit_id.component}/layer={unit_id.layer}"


def _row(paid: Paid) -> dict[str, object]:
    completion = paid.completion
    return {
        "unit": paid.unit_id.unit,
        "request": paid.request,
        "purpose": paid.purpose,
        "endpoint": paid.endpoint,
        "answered_by": completion.model,
        "text": completion.text,
        "is_cut": completion.is_cut,
        "logprobs": None if completion.logprobs is None else [_logprob_row(each) for each in completion.logprobs],
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "cost": paid.cost,
        "answered_at": datetime.now(UTC),
        "run_id": paid.run_id,
    }


def _logprob_row(token: TokenLogprob) -> dict[str, object]:
    top = [{"token": text, "logprob": logprob} for text, logprob in token.top.items()]
    return {"token": token.token, "logprob": token.logprob, "top": top}


def _completion(row: Mapping[str, object]) -> Completion:
    return msgspec.convert(
        {
            **{name: row[name] for name in ("text", "prompt_tokens", "completion_tokens", "is_cut")},
            "model": row["answered_by"],
            "logprobs": _logprobs(row["logprobs"]),
        },
        Completion,
    )


def _logprobs(rows: object) -> object:
    if not isinstance(rows, list):
        return None
    return [row | {"top": {each["token"]: each["logprob"] for each in row["top"]}} for row in rows]

"""One shard, from its files to its committed parts: the unit of work that threads, processes and machines share."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from warehouse.assembly import ShardParts
from warehouse.datasets import Dataset
from warehouse.errors import LakeError, MalformedFile
from warehouse.lake import Lake
from warehouse.options import FetchOptions
from warehouse.parts import Shard
from warehouse.schema import arrow_schema
from warehouse.siblings import flattener_for
from warehouse.source import Fetched, Source

FileRow: TypeAlias = dict[str, Any]

_PACK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What to do with one shard; it can be pickled and sent to another machine.

    Attributes:
        dataset: whose shard.
        shard: which.
        units: the units that the shard will hold, in order.
        asked: those of them whose files are asked for; of the others the lake keeps what it has.
        source: root URL of the files; where only raw packs are read it is not looked at.
        lake: the lake's URL.
        path: the template to look under first.
        options: how to ask for files.
        keep_raw: keep the files' bytes as well, in a raw pack.
        is_refresh: leave alone what has not changed since it was fetched.
    """

    dataset: Dataset
    shard: Shard
    units: tuple[int, ...]
    asked: tuple[int, ...]
    source: str
    lake: str
    path: str = ""
    options: FetchOptions = FetchOptions()
    keep_raw: bool = False
    is_refresh: bool = False


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What came of a shard: the files that were asked for by status, bytes read, records written, seconds taken.

    Attributes:
        unchanged: files that are as they were when the lake took them.
        is_source_down: whether the source answered nobody in the end.
    """

    shard: Shard
    ok: int
    absent: int
    rejected: int
    failed: int
    unchanged: int
    bytes_in: int
    n_records: int
    seconds: float
    is_source_down: bool = False


def build_shard(job: ShardJob) -> ShardSummary:
    """Fetch a shard's files, flatten them and commit the shard.

    A good file that the lake holds stays as it was where it fails now; the summary counts the failure.

    Raises:
        SourceError: the source is not there.
        LakeError: the lake cannot be written.
    """
    source = Source(job.source, job.options, job.path)
    rows = _held_rows(job, "files")
    return _run(job, rows, _fetch(job, source, rows), source, is_raw_only=False)


def extract_shard(job: ShardJob) -> ShardSummary:
    """Fetch a shard's files and keep their bytes as a raw pack, from which `flatten_shard` can go on.

    Raises:
        SourceError: the source is not there.
        LakeError: the lake cannot be written.
    """
    source = Source(job.source, job.options, job.path)
    rows = _held_rows(job, "raw")
    return _run(job, rows, _fetch(job, source, rows), source, is_raw_only=True)


def flatten_shard(job: ShardJob) -> ShardSummary:
    """Flatten a shard from its raw pack, with no source at hand, and commit it.

    Raises:
        LakeError: there is no raw pack, or the lake cannot be written.
    """
    lake = Lake(job.lake)
    commit = lake.read_commit(job.shard, "raw")
    if commit is None:
        raise LakeError(f"no raw pack of {job.shard} in {job.lake}: run 'warehouse extract' first")
    return _run(job, {}, _unpack(lake, job), _Pack(commit.source, commit.path), is_raw_only=False)


class _Origin(Protocol):
    """What a commit says of where its files came from."""

    @property
    def url(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def is_down(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Pack:
    """A raw pack in place of a source."""

    url: str
    path: str
    is_down: bool = False


def _fetch(job: ShardJob, source: Source, held: Mapping[int, FileRow]) -> Iterator[Fetched]:
    known = {row["uri"]: row["etag"] for row in held.values() if job.is_refresh and row["etag"]}
    return source.fetch(job.dataset, job.shard.layer, job.asked, known)


def _held_rows(job: ShardJob, table: str) -> dict[int, FileRow]:
    """Read the rows of `files` (or of a raw pack) of the units that the lake holds already, by unit."""
    lake, names = Lake(job.lake), arrow_schema("files").names
    with _lake_errors(job):
        if lake.read_commit(job.shard, table) is None:
            return {}
        groups = (group.select(names).to_pylist() for group in lake.iterate_part(table, job.shard))
        return {row["unit"]: row for rows in groups for row in rows}


def _unpack(lake: Lake, job: ShardJob) -> Iterator[Fetched]:
    for rows in lake.iterate_part("raw", job.shard):
        for row in rows.to_pylist():
            yield Fetched(
                row["unit"], row["status"], row["uri"], row["fetched_at"], row["content"], row["etag"], row["error"]
            )


def _run(
    job: ShardJob, held: Mapping[int, FileRow], files: Iterable[Fetched], origin: _Origin, *, is_raw_only: bool
) -> ShardSummary:
    """Take files as they come, and commit them together with what is kept of the shard as the lake holds it."""
    started = time.monotonic()
    flattener = None if is_raw_only else flattener_for(job.dataset)
    pack = _PackRows() if is_raw_only or job.keep_raw else None
    tables = (*(flattener.tables if flattener else ()), *(("raw",) if pack else ()))
    counts: Counter[str] = Counter()
    new: dict[int, FileRow] = {}
    with _lake_errors(job), ShardParts(Lake(job.lake), job.shard, tables, is_merged=bool(held)) as parts:

        def flush() -> None:
            rows = (flattener.flush() if flattener else {}) | ({"raw": pack.flush()} if pack else {})
            counts["records"] += rows[tables[0]].num_rows if flattener else 0
            parts.write(rows, {"source": origin.url, "path": origin.path})

        for fetched in files:
            row = _file_row(fetched)
            before = held.get(fetched.unit)
            if before is not None and _is_kept(job, row, before):
                counts[row["status"] if row["status"] == "failed" else "unchanged"] += 1
                continue
            if flattener is not None and fetched.data is not None:
                try:
                    row["format"] = flattener.add(job.shard.layer, fetched.unit, fetched.data)
                except MalformedFile as e:
                    row |= {"status": "rejected", "error": str(e)}
            new[fetched.unit] = row
            if pack is not None:
                pack.add(row, fetched.data)
            if (flattener is not None and flattener.is_full) or (pack is not None and pack.is_full):
                flush()
        kept = {unit: row for unit, row in held.items() if unit not in new}
        if not any(row["status"] in ("ok", "rejected") for row in (*new.values(), *kept.values())):
            _doubt_absentees(new)
        flush()
        if new or not held:
            rows = [row for _, row in sorted((kept | new).items())]
            parts.commit(
                kept.keys(),
                None if is_raw_only else pa.Table.from_pylist(rows, schema=arrow_schema("files")),
                {"source": origin.url, "path": origin.path or job.path},
            )
    counts.update(row["status"] for row in new.values())
    return ShardSummary(
        job.shard,
        ok=counts["ok"],
        absent=counts["absent"],
        rejected=counts["rejected"],
        failed=counts["failed"],
        unchanged=counts["unchanged"],
        bytes_in=sum(row["bytes"] or 0 for row in new.values()),
        n_records=counts["records"],
        seconds=time.monotonic() - started,
        is_source_down=origin.is_down,
    )


def _is_kept(job: ShardJob, row: FileRow, before: FileRow) -> bool:
    """Say whether the lake keeps what it has of a file rather than what came of it now."""
    if row["status"] == "failed":
        return bool(before["status"] == "ok")
    if row["status"] == "absent":
        return bool(job.is_refresh and before["status"] == "absent")
    return bool(
        row["status"] == "unchanged" or (job.is_refresh and row["sha256"] and row["sha256"] == before["sha256"])
    )


def _doubt_absentees(rows: dict[int, FileRow]) -> None:
    """Take no file for absent on the word of a source that has none of a shard's files and fails for some."""
    if any(row["status"] == "failed" for row in rows.values()):
        for row in rows.values():
            if row["status"] == "absent":
                row |= {"status": "failed", "error": "said to be absent by a source that failed for other files"}


class _PackRows:
    """Rows of a raw pack that are not written yet."""

    def __init__(self) -> None:
        self._rows: list[tuple[FileRow, bytes | None]] = []
        self._n_bytes = 0

    def add(self, row: FileRow, content: bytes | None) -> None:
        self._rows.append((row, content))
        self._n_bytes += len(content or b"")

    @property
    def is_full(self) -> bool:
        return self._n_bytes >= _PACK_BYTES

    def flush(self) -> pa.Table:
        rows, self._rows, self._n_bytes = self._rows, [], 0
        return pa.Table.from_pylist([row | {"content": data} for row, data in rows], schema=arrow_schema("raw"))


def end_with_parent() -> None:
    """Let this worker process end when the process that made its pool is gone, killed or not, and not before.

    Ctrl-C reaches every process of a terminal: the one in front decides, and a worker ends the shard it is at.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _lake_errors(job: ShardJob) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else e
        raise LakeError(f"cannot write {job.shard} to {job.lake}: {reason}") from e


def _file_row(fetched: Fetched) -> FileRow:
    data = fetched.data
    return {
        "unit": fetched.unit,
        "status": fetched.status,
        "uri": fetched.uri,
        "format": None,
        "bytes": None if data is None else len(data),
        "sha256": None if data is None else hashlib.sha256(data).hexdigest(),
        "etag": fetched.etag,
        "error": fetched.error,
        "fetched_at": fetched.fetched_at,
    }

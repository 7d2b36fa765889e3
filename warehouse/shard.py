"""One shard, from its files to its committed parts: the unit of work that threads, processes and machines share."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pyarrow as pa

from warehouse.datasets import Dataset
from warehouse.errors import LakeError, MalformedFile
from warehouse.flatten import Flattener
from warehouse.lake import Lake, PartWriter
from warehouse.parts import Shard
from warehouse.schema import arrow_schema
from warehouse.source import Fetched, Source

_PACK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What to do with one shard; it can be pickled and sent to another machine.

    Attributes:
        dataset: whose shard.
        shard: which.
        units: the units wanted, in order.
        source: root URL of the files; where only raw packs are read it is not looked at.
        lake: the lake's URL.
    """

    dataset: Dataset
    shard: Shard
    units: tuple[int, ...]
    source: str
    lake: str


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What came of a shard: files by status, bytes read, records written, seconds taken."""

    shard: Shard
    ok: int
    absent: int
    rejected: int
    failed: int
    bytes_in: int
    n_records: int
    seconds: float


def build_shard(job: ShardJob) -> ShardSummary:
    """Fetch a shard's files, flatten them and commit the shard.

    A shard that the lake holds stays as it was where files of it that were good fail now; the summary counts them.

    Raises:
        SourceError: the source is not there.
        LakeError: the lake cannot be written.
    """
    source = Source(job.source)
    template = source.resolve(job.dataset, job.shard.layer, job.units)
    fetched = source.fetch_any(job.dataset, template, job.shard.layer, job.units)
    return _commit_shard(job, fetched, source.url, template)


def extract_shard(job: ShardJob) -> ShardSummary:
    """Fetch a shard's files and keep their bytes as a raw pack, from which `flatten_shard` can go on.

    Raises:
        SourceError: the source is not there.
        LakeError: the lake cannot be written.
    """
    started = time.monotonic()
    source = Source(job.source)
    template = source.resolve(job.dataset, job.shard.layer, job.units)
    statuses: Counter[str] = Counter()
    size = 0
    with _lake_errors(job), Lake(job.lake).write_part("raw", job.shard) as part:
        part.commit_facts = {"source": source.url, "path": template}
        rows: list[dict[str, object]] = []
        held = 0
        for fetched in source.fetch_any(job.dataset, template, job.shard.layer, job.units):
            rows.append(_file_row(fetched) | {"content": fetched.data})
            statuses[fetched.status] += 1
            held += len(fetched.data or b"")
            if held >= _PACK_BYTES:
                part.write(pa.Table.from_pylist(rows, schema=arrow_schema("raw")))
                size, held, rows = size + held, 0, []
        part.write(pa.Table.from_pylist(rows, schema=arrow_schema("raw")))
    return _summary(job, statuses, size + held, 0, started)


def flatten_shard(job: ShardJob) -> ShardSummary:
    """Flatten a shard from its raw pack, with no source at hand, and commit it.

    Raises:
        LakeError: there is no raw pack, or the lake cannot be written.
    """
    lake = Lake(job.lake)
    commit = lake.read_commit(job.shard, "raw")
    if commit is None:
        raise LakeError(f"no raw pack of {job.shard} in {job.lake}: run 'warehouse extract' first")
    return _commit_shard(job, _unpack(lake, job), commit.source, commit.path)


def _unpack(lake: Lake, job: ShardJob) -> Iterator[Fetched]:
    for rows in lake.iterate_part("raw", job.shard):
        for row in rows.to_pylist():
            yield Fetched(
                row["unit"], row["status"], row["uri"], row["fetched_at"], row["content"], row["etag"], row["error"]
            )


def _commit_shard(job: ShardJob, files: Iterable[Fetched], source: str, template: str) -> ShardSummary:
    started = time.monotonic()
    lake = Lake(job.lake)
    flattener = Flattener(job.dataset)
    tables = ("records", "units", "pair_stats" if job.dataset.per == "token_pair" else "token_stats")
    rows: list[dict[str, object]] = []
    n_records = 0
    with _lake_errors(job), suppress(_GoodFilesFailed):
        with ExitStack() as stack:
            parts = {table: stack.enter_context(lake.write_part(table, job.shard)) for table in tables}
            for fetched in files:
                rows.append(_add(flattener, job.shard.layer, fetched))
                if flattener.is_full:
                    n_records += _flush(flattener, parts)
            n_records += _flush(flattener, parts)
            _keep_good_files(lake, job.shard, rows)
            lake.remove_shard(job.shard)  # the new parts are whole: from here on they take the old ones' place
        with lake.write_part("files", job.shard) as part:
            part.commit_facts = {"source": source, "path": template}
            part.write(pa.Table.from_pylist(rows, schema=arrow_schema("files")))
    statuses = Counter(str(row["status"]) for row in rows)
    return _summary(job, statuses, sum(int(str(row["bytes"] or 0)) for row in rows), n_records, started)


class _GoodFilesFailed(Exception):
    """Files that the lake holds could not be had again, so the shard stays as it was."""


def _keep_good_files(lake: Lake, shard: Shard, rows: list[dict[str, object]]) -> None:
    """Stop a shard from being replaced by one that lost files to a failing source."""
    commit = lake.read_commit(shard)
    if commit is not None:
        good = {unit for unit, status in zip(commit.units, commit.statuses, strict=True) if status == "ok"}
        if any(row["status"] == "failed" and row["unit"] in good for row in rows):
            raise _GoodFilesFailed


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


def _add(flattener: Flattener, layer: int, fetched: Fetched) -> dict[str, object]:
    """Flatten one file, and give its row of `files`."""
    row = _file_row(fetched)
    if fetched.data is not None:
        try:
            row["format"] = flattener.add(layer, fetched.unit, fetched.data)
        except MalformedFile as e:
            row |= {"status": "rejected", "error": str(e)}
    return row


def _flush(flattener: Flattener, parts: dict[str, PartWriter]) -> int:
    tables = flattener.flush()
    for table, rows in tables.items():
        parts[table].write(rows)
    return int(tables["records"].num_rows)


def _file_row(fetched: Fetched) -> dict[str, object]:
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


def _summary(job: ShardJob, statuses: Counter[str], size: int, n_records: int, started: float) -> ShardSummary:
    return ShardSummary(
        job.shard,
        ok=statuses["ok"],
        absent=statuses["absent"],
        rejected=statuses["rejected"],
        failed=statuses["failed"],
        bytes_in=size,
        n_records=n_records,
        seconds=time.monotonic() - started,
    )

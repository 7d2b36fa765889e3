"""Jobs as lines of JSON: each has all that an explainer or a scorer of the user's own needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

from warehouse.explain.examples import Example, Job, Unfit
from warehouse.explain.formats import FormatOptions, OutputShard, Written
from warehouse.explain.jobs import iterate_jobs
from warehouse.explain.prompts import to_scale
from warehouse.pairs import n_keys, unflatten_pairs
from warehouse.reader import LakeReader
from warehouse.records import IntArray

NOTES = (
    "One job a line. activations are floor(10 * relu(x) / max_activation), at most 10, and max_activation is the "
    "largest of the train examples; null where the unit's activations on a contrasting text are not known.",
    "Of token pairs, pairs are [query_position, key_position, activation] of 1 to 10; one that is not listed is 0 "
    "where key_position < n_keys, and beyond was not recorded.",
)


def write_shard(reader: LakeReader, shard: OutputShard, options: FormatOptions, folder: Path) -> Written:
    """Write the jobs of a shard's units as one file."""
    written = Written()
    with (folder / f"jobs-{shard.number:06d}.jsonl").open("wb") as lines:
        for job in iterate_jobs(reader, shard.units, options.splits):
            if isinstance(job, Unfit):
                written.unfit.append(job)
                continue
            lines.write(orjson.dumps(_spell(job), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
            written.n_units += 1
            for split, examples in job.splits.items():
                written.counts[f"{split}_examples"] += len(examples)
    return written


def _spell(job: Job) -> dict[str, object]:
    name = job.unit_id
    return {
        "unit_id": str(name),
        "model": name.model,
        "component": name.component,
        "layer": name.layer,
        "unit": name.unit,
        "kind": job.kind,
        "per": job.per,
        "max_activation": job.max_activation,
        "splits": {
            split: [_spell_example(example, job) for example in examples] for split, examples in job.splits.items()
        },
    }


def _spell_example(example: Example, job: Job) -> dict[str, object]:
    spelt: dict[str, object] = {
        "unit_id": str(example.unit_id),
        "section": example.section,
        "quantile": example.quantile,
        "rank": example.rank,
        "is_active": example.is_active,
        "tokens": example.tokens,
    }
    values = None if example.is_active is None else to_scale(example.activations, job.max_activation)
    if job.per == "token":
        return spelt | {"activations": values}
    n_tokens, n_values = len(example.tokens), len(example.activations)
    return spelt | {
        "n_keys": n_keys(n_tokens, n_values),
        "pairs": None if values is None else _list_pairs(values, n_tokens),
    }


def _list_pairs(values: IntArray, n_tokens: int) -> IntArray:
    query, key = unflatten_pairs(n_tokens, len(values))
    return np.stack([query, key, values], axis=1)[values > 0]

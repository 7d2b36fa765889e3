"""Latent caches of EleutherAI's delphi, one for each latent: token ids, and where and how strongly it is active.

delphi takes every position that no location names for inactive, and one matrix of tokens for all latents of a cache.
But a lake knows a latent's activations on its own records alone. So each latent has a cache of its own: a folder to be
given to LatentDataset as raw_dir, in which no text is another latent's.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from warehouse.decode.gpt2 import token_texts
from warehouse.errors import WarehouseError
from warehouse.explain.examples import Unfit
from warehouse.explain.formats import FormatOptions, OutputShard, Written, make_parent
from warehouse.explain.splits import UnfitUnit
from warehouse.explain.units import UnitRecords, iterate_units
from warehouse.reader import LakeReader

NOTES = (
    "One cache a latent, {model}/{component}/{layer}/{unit}, to be given as raw_dir: delphi reads the tokens of the "
    "first file for all, and takes what no location names for inactive, so that latents must not share one.",
    "Ids are recovered from the tokens' texts: records with a token that is part of a UTF-8 character (U+FFFD), or "
    "that GPT-2 does not have, are left out and counted.",
    "A cache is a matrix: records of another length than most of their unit's are left out and counted.",
    "Positive activations alone are locations, without those below floor times the unit's largest: GELU tails would "
    "make every text an activating one.",
    "Texts were chosen for being strong, so per_context_frequency is none of the model's.",
    "A unit has some tens to some hundreds of texts: lower min_examples (200), n_examples_train and n_examples_test, "
    "take an example_ctx_len that divides the context, and leave center_examples on: without it delphi joins texts "
    "that do not follow one another.",
)
_NEGLIGIBLE = 1e-5
"""What delphi's own cache takes for zero."""
_LARGEST_HALF = float(np.finfo(np.float16).max)
_UNKNOWN = -1
_HUB_NAMES = {"gpt2-small": "openai-community/gpt2", "gpt2-xl": "openai-community/gpt2-xl"}

Ids = NDArray[np.int64]


def write_shard(reader: LakeReader, shard: OutputShard, options: FormatOptions, folder: Path) -> Written:
    """Write a cache for each unit of a shard.

    Raises:
        WarehouseError: safetensors is not installed.
    """
    written = Written()
    vocabulary: NDArray[np.object_] | None = None
    for unit in iterate_units(reader, shard.units):
        if unit.vocabulary is not vocabulary:
            vocabulary = unit.vocabulary
            ids = np.fromiter((_gpt2_ids().get(text, _UNKNOWN) for text in vocabulary), np.int64, len(vocabulary))
        try:
            tensors = _make_cache(unit, ids, options.floor, written.counts)
        except UnfitUnit as e:
            written.unfit.append(Unfit(unit.unit_id, str(e)))
            continue
        _write_cache(unit, tensors, folder)
        written.n_units += 1
    return written


@functools.cache
def _gpt2_ids() -> Mapping[str, int]:
    """Give the id of every text that is one GPT-2 token's and no other's."""
    texts = token_texts().tolist()
    uses = Counter(texts)
    return {text: i for i, text in enumerate(texts) if uses[text] == 1 and "\ufffd" not in text}


def _make_cache(unit: UnitRecords, ids: Ids, floor: float, counts: Counter[str]) -> dict[str, NDArray[np.generic]]:
    """Make a latent's tensors.

    Returns:
        locations [n, 3] (row, position, latent less the file's first: 0), activations [n] and tokens [rows, context].

    Raises:
        UnfitUnit: it is of no kind that delphi takes, or is active nowhere.
    """
    if unit.dataset.per != "token":
        raise UnfitUnit("has activations per token pair, and delphi takes them per token")
    if unit.dataset.tokenizer != "gpt2":
        raise UnfitUnit("has tokens of an unknown tokenizer, and delphi takes ids")
    rows = _choose_rows(unit, ids, counts)
    if not rows:
        raise UnfitUnit("has no record of whose tokens all ids are known")
    tokens = np.stack([ids[unit.codes[i]] for i in rows])
    values = np.stack([unit.activations[i] for i in rows])
    is_on = (values > _NEGLIGIBLE) & (values >= floor * float(values.max(initial=0)))
    row, position = np.nonzero(is_on)
    if not len(row):
        raise UnfitUnit("is not active in any record of whose tokens all ids are known")
    active = values[is_on]
    counts["records"] += len(rows)
    counts["locations"] += len(row)
    return {
        "locations": np.stack([row, position, np.zeros_like(row)], axis=1).astype(_narrowest(tokens.shape)),
        "activations": active.astype(np.float16) if active.max() <= _LARGEST_HALF else active,
        "tokens": tokens,
    }


def _choose_rows(unit: UnitRecords, ids: Ids, counts: Counter[str]) -> list[int]:
    """Give the records whose ids are all known, each text once, of the length that most have."""
    known = [i for i in range(len(unit)) if len(unit.codes[i]) and (ids[unit.codes[i]] != _UNKNOWN).all()]
    once = unit.first_of_each_text(known)
    lengths = Counter(len(unit.codes[i]) for i in once)
    context = max(lengths, key=lambda length: (lengths[length], length), default=0)
    rows = [i for i in once if len(unit.codes[i]) == context]
    counts["records_without_ids"] += len(unit) - len(known)
    counts["records_of_a_text_that_is_there"] += len(known) - len(once)
    counts["records_of_another_length"] += len(once) - len(rows)
    return rows


def _narrowest(shape: Sequence[int]) -> type[np.unsignedinteger]:
    return np.uint16 if max(shape) < 2**16 else np.uint32


def _write_cache(unit: UnitRecords, tensors: Mapping[str, NDArray[np.generic]], folder: Path) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError as e:
        raise WarehouseError("delphi's caches need safetensors: pip install 'activation-warehouse[explain]'") from e
    name = unit.unit_id
    raw_dir = folder / name.model / name.component / str(name.layer) / str(name.unit)
    module = raw_dir / f"{name.model}.{name.component}.{name.layer}"
    path = make_parent(module / f"{name.unit}_{name.unit}.safetensors")
    save_file(dict(tensors), path, {"unit_id": str(name)})
    n_rows, context = tensors["tokens"].shape
    config = {
        "model_name": _HUB_NAMES.get(name.model, "openai-community/gpt2"),
        "dataset_repo": "",
        "dataset_split": "",
        "dataset_name": "",
        "dataset_column": "",
        "batch_size": n_rows,
        "cache_ctx_len": context,
        "ctx_len": context,
        "n_tokens": n_rows * context,
        "n_splits": 1,
    }
    (module / "config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))

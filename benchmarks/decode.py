"""Decoding one latent of 110 records in each form of `.pt`: ours against torch.load(weights_only=True).

Both read the same bytes in the same process, in turns; torch.load gives tensors and lists as they are, ours a checked
NeuronRecord with text for token ids. Run it as: python benchmarks/decode.py
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import make_dataclass
from types import ModuleType
from typing import Any

import numpy as np
import orjson
import torch

from warehouse.datasets import builtin_datasets
from warehouse.decode import decode
from warehouse.decode.gpt2 import N_TOKENS, token_texts

N_TOP, N_RANDOM, N_POSITIONS = 20, 90, 64
ROUNDS = 31
OPENAI = "neuron_explainer.activations.activations"


def main() -> None:
    """Print, for each form, the median milliseconds of both and their ratio."""
    dataset = builtin_datasets()["gpt2-small/mlp_post_act_ae_v4"]
    print(f"{N_TOP + N_RANDOM} records of {N_POSITIONS} tokens, medians of {ROUNDS} rounds, ms a file")
    print(f"{'form':<36}{'bytes':>9}{'decode':>9}{'torch.load':>12}{'ratio':>7}")
    for form, root in make_forms().items():
        data = save(root)
        ours, torchs = run_in_turns(
            lambda data=data: decode(data, dataset, 5, 131),  # type: ignore[misc]
            lambda data=data: torch.load(io.BytesIO(data), weights_only=True),  # type: ignore[misc]
        )
        print(f"{form:<36}{len(data):>9,}{ours:>9.2f}{torchs:>12.2f}{torchs / ours:>7.1f}")


def make_forms() -> dict[str, Any]:
    """Make one latent, with the same tokens and activations, as each form has it."""
    random = np.random.default_rng(0)
    # Log-uniform, since the tokens of text are about as rare as their rank, and GPT-2's ids are about in that order.
    ids = (N_TOKENS ** random.random((N_TOP + N_RANDOM, N_POSITIONS))).astype(np.int64) - 1
    values = np.maximum(random.normal(-1, 1, ids.shape), 0).astype(np.float32)
    classes = make_openai_classes()

    def unit(records: Callable[[slice], Any]) -> dict[str, Any]:
        return {
            "neuron_id": {"layer_index": 5, "neuron_index": 131},
            "most_positive_activation_records": records(slice(0, N_TOP)),
            "random_sample": records(slice(N_TOP, None)),
            "mean": 0.25,
        }

    def each(make: Callable[[Any, Any], Any]) -> Callable[[slice], Any]:
        return lambda part: [make(i, v) for i, v in zip(ids[part], values[part], strict=True)]

    def record(tokens: Any, activations: Any) -> dict[str, Any]:
        return {"tokens": tokens, "activations": activations}

    lists = unit(each(lambda i, v: record(token_texts()[i].tolist(), v.tolist())))
    objects = unit(each(lambda i, v: classes["ActivationRecord"](token_texts()[i].tolist(), v.tolist())))
    objects["neuron_id"] = classes["NeuronId"](5, 131)
    return {
        "lists": lists,
        "small tensors, tokens as text": unit(
            each(lambda i, v: record(token_texts()[i].tolist(), torch.from_numpy(v.copy())))
        ),
        "small tensors, tokens as ids": unit(
            each(lambda i, v: record(torch.from_numpy(i.copy()), torch.from_numpy(v.copy())))
        ),
        "stacked tensors, tokens as ids": unit(
            lambda part: record(torch.from_numpy(ids[part].copy()), torch.from_numpy(values[part].copy()))
        ),
        "objects of OpenAI's classes": classes["NeuronRecord"](**objects),
        "JSON inside (torch.load: text only)": orjson.dumps(lists).decode(),
    }


def make_openai_classes() -> dict[str, Any]:
    """Make look-alikes of OpenAI's dataclasses under their module's name, and let torch.load read them."""
    module = ModuleType(OPENAI)
    sys.modules |= {"neuron_explainer": ModuleType("neuron_explainer"), OPENAI: module}
    sys.modules["neuron_explainer.activations"] = ModuleType("neuron_explainer.activations")
    columns = {
        "NeuronId": ["layer_index", "neuron_index"],
        "ActivationRecord": ["tokens", "activations"],
        "NeuronRecord": ["neuron_id", "most_positive_activation_records", "random_sample", "mean"],
    }
    for name, fields in columns.items():
        setattr(module, name, make_dataclass(name, fields, namespace={"__module__": OPENAI}))
    torch.serialization.add_safe_globals([getattr(module, name) for name in columns])
    return vars(module)


def save(root: Any) -> bytes:
    """Give what torch.save writes."""
    file = io.BytesIO()
    torch.save(root, file)
    return file.getvalue()


def run_in_turns(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Run both in turns, after one run of each that is not counted; give the median milliseconds of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for call, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


if __name__ == "__main__":
    main()

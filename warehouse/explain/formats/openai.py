"""NeuronRecord files in the bucket's tree, which OpenAI's neuron_explainer loads unchanged."""

from __future__ import annotations

import re
from pathlib import Path

from warehouse.explain.formats import FormatOptions, OutputShard, Written, make_parent
from warehouse.explain.units import iterate_units
from warehouse.reader import LakeReader

NOTES = (
    "One NeuronRecord a file, {layer}/{unit}.json below the dataset's folder, whatever the form of the source.",
    "Every record is there, in the source's order: neuron_explainer slices the splits itself.",
)


def write_shard(reader: LakeReader, shard: OutputShard, options: FormatOptions, folder: Path) -> Written:
    """Write the NeuronRecord files of a shard's units."""
    written = Written()
    for unit in iterate_units(reader, shard.units):
        template = re.sub(r"(\.json|\.pt)?$", ".json", unit.dataset.paths[0], count=1)
        path = folder / template.format(layer=unit.unit_id.layer, unit=unit.unit_id.unit)
        make_parent(path).write_bytes(unit.to_neuron_record().to_json())
        written.n_units += 1
        written.counts["records"] += len(unit)
    return written

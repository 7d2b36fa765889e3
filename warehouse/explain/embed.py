"""Embeddings of a lake's explanations, made once for each distinct text and kept below `{lake}/embeddings/`.

A batch is a Parquet file under a name that follows from its texts, and its own commit, as batches of answers are; so
what was embedded before a run was killed is not embedded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from warehouse.catalogue import build_catalogue, is_current
from warehouse.embedding import EMBEDDER, SIZE, Embedder
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.reader import LakeReader
from warehouse.schema import arrow_schema

_BATCH_TEXTS = 2_048
_MISSING = """
SELECT
  t.explanation_hash,
  any_value(t.explanation) AS explanation
FROM explanation_texts AS t
ANTI JOIN explanation_vectors AS v ON v.explanation_hash = t.explanation_hash
GROUP BY t.explanation_hash
"""


def embed_explanations(lake: Lake, report: Callable[[int, int], None]) -> int:
    """Embed the explanations that have no embedding yet, and bring the catalogue up to date.

    Args:
        lake: whose; it must be there.
        report: called after each batch with the texts that are done and those that there are to do.

    Returns:
        How many texts were embedded.

    Raises:
        MissingEmbedder: the extra `semantic` is not installed.
        LakeError: there is no lake, or it cannot be written.
    """
    lake.require()
    lake.create()
    embedder = Embedder()
    if not is_current(lake):
        build_catalogue(lake)
    with LakeReader(lake) as reader:
        missing = reader.sql(f"{_MISSING} ORDER BY t.explanation_hash")
    for first in range(0, missing.height, _BATCH_TEXTS):
        hashes, texts = (column.to_list() for column in missing[first : first + _BATCH_TEXTS])
        vectors = np.ascontiguousarray(embedder.embed(texts))
        rows = pa.table(
            {
                "explanation_hash": pa.array(hashes, pa.uint64()),
                "embedder": pa.repeat(EMBEDDER, len(hashes)),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), SIZE),
            },
            schema=arrow_schema("embeddings"),
        )
        name = hashlib.sha256(repr(hashes).encode()).hexdigest()[:24]
        try:
            lake.write_batch("embeddings", f"{EMBEDDER}-{name}", rows)
        except OSError as e:
            raise LakeError(f"cannot write to the lake {lake.url}: {e.strerror or e}") from e
        report(min(first + _BATCH_TEXTS, missing.height), missing.height)
    if missing.height:
        build_catalogue(lake)
    return missing.height

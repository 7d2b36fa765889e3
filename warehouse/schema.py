"""Every column of the warehouse once: its SQL type, its unit of measure, and what it says."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """A column's SQL type and its description, which names the unit of measure where there is one."""

    sql_type: str
    description: str


SCORES_TYPE = "STRUCT(score_kind VARCHAR, score DOUBLE, score_low DOUBLE, score_high DOUBLE, n_scored INTEGER)[]"

ARROW_TYPES: dict[str, pa.DataType] = {
    "VARCHAR": pa.string(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
    "VARCHAR[]": pa.list_(pa.string()),
    "FLOAT[]": pa.list_(pa.float32()),
    "DOUBLE[]": pa.list_(pa.float64()),
    "BLOB": pa.large_binary(),
    "UBIGINT": pa.uint64(),
    SCORES_TYPE: pa.list_(
        pa.struct(
            [
                ("score_kind", pa.string()),
                ("score", pa.float64()),
                ("score_low", pa.float64()),
                ("score_high", pa.float64()),
                ("n_scored", pa.int32()),
            ]
        )
    ),
    "FLOAT[384]": pa.list_(pa.float32(), 384),
}

COLUMNS: dict[str, Column] = {
    # where a row belongs
    "model": Column("VARCHAR", "Model, as gpt2-small or gpt2-xl."),
    "component": Column("VARCHAR", "Part of the model the units are in, as mlp_post_act; DATASETS view lists all."),
    "layer": Column("INTEGER", "Layer index, from 0."),
    "unit": Column("INTEGER", "Index of the neuron, attention head or latent in its layer, from 0."),
    "unit_id": Column(
        "VARCHAR", "The unit's full name: model/component/layer/unit. Filter by those four: they choose what is read."
    ),
    # files
    "status": Column(
        "VARCHAR",
        "Of a file: ok, absent (the source has no such file), rejected (not decodable) or failed (not fetched). Of an "
        "answer: ok, failed, refused (by the model), unfit (too few records) or over_budget.",
    ),
    "uri": Column("VARCHAR", "Where the file was read, or looked for."),
    "format": Column(
        "VARCHAR", "What the content was found to be: json, pickle, torch-zip or torch-legacy, +gzip if packed."
    ),
    "bytes": Column("BIGINT", "Size of the file as stored, in bytes."),
    "sha256": Column("VARCHAR", "SHA-256 of the file as stored, in hexadecimal."),
    "etag": Column(
        "VARCHAR", "The source's own mark of the file's version: an HTTP ETag, or modification time and size."
    ),
    "error": Column("VARCHAR", "Why a file is rejected or failed, or a unit has no explanation."),
    "fetched_at": Column("TIMESTAMPTZ", "When the file was read."),
    "content": Column("BLOB", "The file's bytes as stored, in a raw pack."),
    # units
    "mean": Column("DOUBLE", "Mean activation over the source's whole sample, as the file gives it."),
    "variance": Column("DOUBLE", "Variance of the activation over the source's whole sample, as the file gives it."),
    "skewness": Column("DOUBLE", "Skewness of the activation over the source's whole sample, as the file gives it."),
    "kurtosis": Column("DOUBLE", "Kurtosis of the activation over the source's whole sample, as the file gives it."),
    "quantile_boundaries": Column("DOUBLE[]", "Boundaries of the quantile buckets, as the file gives them."),
    "n_buckets": Column("INTEGER", "Quantile buckets in the file, empty ones too; NULL where it has no such list."),
    "active_fraction": Column(
        "DOUBLE", "Part of the random sample's activations that are positive, 0 to 1; NULL without any."
    ),
    "n_top": Column("INTEGER", "Top-activating records."),
    "n_random": Column("INTEGER", "Records of the random sample; in token_stats and pair_stats, occurrences in them."),
    "n_quantile": Column("INTEGER", "Records of the random samples by quantile, all buckets together."),
    # records
    "section": Column("VARCHAR", "Which of the file's lists holds the record: top, random or quantile."),
    "quantile": Column("INTEGER", "Quantile bucket, from 0; NULL outside section quantile."),
    "rank": Column("INTEGER", "Place in the source's list, from 0; in a list that is ordered, 0 is the strongest."),
    "tokens": Column("VARCHAR[]", "The excerpt's tokens."),
    "activations": Column(
        "FLOAT[]",
        "Activation at each token; for token pairs the flattened lower triangle, a row for each query token.",
    ),
    "max_activation": Column(
        "FLOAT", "Largest activation: of the record, of the unit's top records, or on the token or pair."
    ),
    "argmax": Column("INTEGER", "Index of the first largest value in activations, from 0."),
    "split": Column("VARCHAR", "What an explanation job uses the record for: train, calibration, valid or test."),
    # positions
    "position": Column("INTEGER", "Index of the token in the record, from 0."),
    "token": Column("VARCHAR", "A token's text; a token that is part of a UTF-8 character reads as U+FFFD."),
    "activation": Column("FLOAT", "Activation at the token, or (signed) at the token pair."),
    "query_position": Column("INTEGER", "Index of the attending (later) token, from 0."),
    "key_position": Column("INTEGER", "Index of the attended-to (earlier or same) token, from 0."),
    "query_token": Column("VARCHAR", "The attending (later) token."),
    "key_token": Column("VARCHAR", "The attended-to (earlier or same) token."),
    # statistics
    "n": Column("INTEGER", "Occurrences in the records of all sections."),
    "n_active": Column("INTEGER", "Occurrences with a positive activation."),
    "min_activation": Column("FLOAT", "Smallest activation on the pair: pair attributions are signed."),
    "sum_activation": Column("FLOAT", "Sum of the activations over all occurrences."),
    "sum_random": Column("FLOAT", "Sum of the activations over occurrences in the random sample, the unbiased part."),
    "sum_positive": Column("FLOAT", "Sum of the positive activations over all occurrences."),
    # siblings
    "dataset": Column(
        "VARCHAR",
        "Dataset whose file says it, model/component: not the component it is about. Of answers: answers/ and the "
        "batch.",
    ),
    "about": Column("VARCHAR", "Component of the units that the row, or the dataset, is about."),
    "explanation": Column("VARCHAR", "What the unit responds to, in words."),
    "explainer": Column("VARCHAR", "Model or method that wrote the explanation; NULL where the file does not say."),
    "origin": Column(
        "VARCHAR",
        "Who made the explanation: openai for published ones, else the name that the run or import was given.",
    ),
    "score_kind": Column(
        "VARCHAR",
        "What score measures, of simulated against real activations: ev_correlation (correlation, -1 to 1), rsquared "
        "(R², at most 1), absolute_dev_explained (1 less mean absolute error over mean absolute activation, at most 1);"
        " for heads roc_auc (0 to 1). Runs and imports have kinds of their own, as detection_f1.",
    ),
    "score": Column(
        "DOUBLE",
        "How well the explanation predicts the unit, without unit of measure; NULL where undefined. Scores of GPT-2 "
        "small and XL were made by different methods and cannot be compared.",
    ),
    "created_at": Column("TIMESTAMPTZ", "When the explanation was made; NULL where the file does not say."),
    # answers
    "batch": Column("VARCHAR", "Batch of answers that the row is of: a file below the lake's answers/."),
    "scores": Column(SCORES_TYPE, "Scores of the explanation, the one that counts first at the head."),
    "score_low": Column("DOUBLE", "Lower end of the score's 95 % interval; NULL where there is none."),
    "score_high": Column("DOUBLE", "Upper end of the score's 95 % interval; NULL where there is none."),
    "n_scored": Column("INTEGER", "Records, examples or pairs that the score was counted over; NULL where unknown."),
    "prompt_tokens": Column("BIGINT", "Tokens sent to the model that this run paid for; what was paid before is 0."),
    "completion_tokens": Column("BIGINT", "Tokens that the model gave back, likewise."),
    "cost": Column("DOUBLE", "Cost of these tokens, in the currency of the prices that the run was given."),
    "run_id": Column("VARCHAR", "Run of `warehouse explain run` that the answer is of; NULL for imports."),
    "answer_key": Column("UBIGINT", "Hash of what the answer says: the same answer has the same key everywhere."),
    "direction": Column(
        "VARCHAR",
        "upstream or downstream of the unit, by its input (c_fc) or output (c_proj) weights; for tokens input or "
        "output. NULL where the basis is activation.",
    ),
    "sign": Column("VARCHAR", "List of the positive or of the negative weights; NULL where the basis is activation."),
    "related_layer": Column("INTEGER", "Layer of the related unit, from 0."),
    "related_unit": Column("INTEGER", "Index of the related unit in its layer, from 0."),
    "related_unit_id": Column("VARCHAR", "The related unit's full name: model/component/layer/unit."),
    "weight": Column(
        "FLOAT",
        "Weight, without unit of measure: of the connection between two units (NULL where the file's is), or of a "
        "token in a unit's profile.",
    ),
    "basis": Column(
        "VARCHAR",
        "How tokens were related to the unit: activation or weight. Of duplicates, what is the same: token_stats or "
        "top records.",
    ),
    "strength": Column(
        "FLOAT",
        "Mean activation on the token (basis activation), or weight between token and unit, without unit of measure "
        "(basis weight); NULL where the file's is.",
    ),
    # datasets
    "holds": Column(
        "VARCHAR", "What the files say of a unit: activations, explanations, related_units or related_tokens."
    ),
    "kind": Column("VARCHAR", "What a unit is: neuron, head or latent."),
    "per": Column("VARCHAR", "What an activation belongs to: token or token_pair."),
    "n_layers": Column("INTEGER", "Layers of the dataset."),
    "units_per_layer": Column("INTEGER", "Units (files) expected in one layer."),
    "notes": Column("VARCHAR", "Caveats of the dataset, each with its source, one a line."),
    # coverage
    "expected": Column("BIGINT", "Files expected in the layer: the dataset's units_per_layer."),
    "ok": Column("BIGINT", "Expected files that are in the lake."),
    "absent": Column("BIGINT", "Expected files that the source does not have."),
    "rejected": Column("BIGINT", "Expected files that could not be decoded."),
    "failed": Column("BIGINT", "Expected files that could not be fetched."),
    "missing": Column("BIGINT", "Expected files that no build has asked for yet."),
    "extra": Column("BIGINT", "Files beyond the expected ones, of any status; no other column counts them."),
    # the token index
    "first_unit": Column("INTEGER", "First unit of the shard."),
    "last_unit": Column("INTEGER", "Last unit of the shard, inclusive."),
    "commit_mark": Column("VARCHAR", "Mark of the commit whose rows the index holds: an ETag or time, and size."),
    "run": Column("INTEGER", "Sorted run of the index that holds the shard's rows, from 0."),
    "token_number": Column("INTEGER", "The token's number in this catalogue, from 0."),
    "gpt2_id": Column("INTEGER", "GPT-2's id of the token; NULL where it has none or its text is that of several."),
    "n_occurrences": Column(
        "BIGINT", "Occurrences in the records of all sections, over the units that are ever active on the token."
    ),
    "n_units": Column("BIGINT", "Units that are active on the token."),
    "total_positive": Column("DOUBLE", "Sum of the unit's positive activations over all tokens and records."),
    # contexts, selectivity and profiles
    "text_key": Column("UBIGINT", "Hash of the text's tokens."),
    "text": Column("VARCHAR", "The text of a record: its tokens, joined."),
    "token_starts": Column("INTEGER[]", "Character of the text at which each token starts, from 0."),
    "max_activations": Column("FLOAT[]", "Strongest activation of any unit on each token; 0 where none is active."),
    "active_positions": Column("USMALLINT[]", "Positions of the tokens on which the unit is active (> 0), from 0."),
    "active_values": Column("FLOAT[]", "Activation at each of active_positions."),
    "n_tokens": Column("INTEGER", "Distinct tokens on which the unit is active, in the records of all sections."),
    "entropy": Column(
        "DOUBLE",
        "Entropy of the unit's positive activation over tokens, in bits: 0 where all is on one; NULL without any.",
    ),
    "top_token": Column("VARCHAR", "Token with the largest part of the unit's positive activation."),
    "top_token_share": Column("DOUBLE", "Part of the unit's positive activation that is on top_token, 0 to 1."),
    "top_token_n": Column("INTEGER", "Occurrences of top_token in the unit's records of all sections."),
    "top_token_n_active": Column("INTEGER", "Occurrences of top_token with a positive activation."),
    "profile": Column("HUGEINT", "Sum of hashes of the unit's rows of token_stats: units with the same rows share it."),
    "why": Column("VARCHAR", "Why a unit is dead: no records, or never active."),
    "first_unit_id": Column("VARCHAR", "Of the units that are the same, the first in order."),
    "n_same": Column("BIGINT", "Units that are the same, this one too."),
    "active_part": Column("DOUBLE", "Part of top_token's occurrences on which the unit is active, 0 to 1."),
    "is_in_context": Column(
        "BOOLEAN", "Whether the unit is active on some occurrences of its token and not on others."
    ),
    "units": Column("BIGINT", "Units of the layer that are in the lake."),
    "dead": Column("BIGINT", "Units of dead_units."),
    "near_dead": Column("BIGINT", "Units of near_dead_units."),
    "duplicate": Column("BIGINT", "Units of duplicate_units."),
    "one_token": Column("BIGINT", "Units of one_token_units that are active on nearly every occurrence of the token."),
    "one_token_in_context": Column("BIGINT", "Units of one_token_units that are active in some contexts only."),
    "unit_number": Column("INTEGER", "The unit's number in this catalogue, from 0."),
    "token_numbers": Column("INTEGER[]", "Numbers of the unit's strongest tokens, strongest first."),
    "weights": Column("FLOAT[]", "Weight of each of these tokens, without unit of measure: their squares sum to 1."),
    "text_hash": Column("UBIGINT", "64 bits of the MD5 of a text's tokens."),
    "is_top": Column("BOOLEAN", "Whether one of the unit's top records has the text."),
    "fired_positions": Column("USMALLINT[]", "Positions at which the unit fires in the text, from 0."),
    # search over explanations
    "explanation_number": Column("INTEGER", "The explanation's number in this catalogue, from 0."),
    "explanation_hash": Column("UBIGINT", "Lower 64 bits of the MD5 of the explanation's text."),
    "n_words": Column("INTEGER", "Words of the explanation."),
    "term_number": Column("INTEGER", "The term's number in this catalogue, from 0."),
    "term": Column("VARCHAR", "A word's stem, as word_stem gives it."),
    "n_in_text": Column("INTEGER", "Times that the term is in the explanation."),
    "n_explanations": Column("INTEGER", "Explanations that have the term."),
    "embedder": Column("VARCHAR", "Model that made the embedding."),
    "embedding": Column("FLOAT[384]", "Embedding of the explanation's text: a vector of length 1."),
    "part": Column("VARCHAR", "Path of the Parquet file in the lake."),
    "part_number": Column("INTEGER", "Number of the part in this catalogue, from 0."),
    # the catalogue itself
    "table_name": Column("VARCHAR", "Table that the part belongs to."),
    "path": Column("VARCHAR", "Absolute path of the Parquet file."),
    "root": Column("VARCHAR", "Absolute path of the lake."),
    "definitions": Column("VARCHAR", "SHA-256 of the SQL that made the catalogue, in hexadecimal."),
    "commits": Column("VARCHAR", "SHA-256 of the list of committed shards and batches, in hexadecimal."),
    "built_at": Column("TIMESTAMPTZ", "When the catalogue was built."),
}

PARTITIONS = ("model", "component", "layer")
"""Columns that a part's path holds, and its rows do not."""

TABLES: dict[str, tuple[str, ...]] = {
    "records": ("unit", "section", "quantile", "rank", "tokens", "activations", "max_activation", "argmax"),
    "units": (
        "unit", "mean", "variance", "skewness", "kurtosis", "quantile_boundaries", "n_buckets", "max_activation",
        "active_fraction", "n_top", "n_random", "n_quantile",
    ),
    "token_stats": (
        "unit", "token", "n", "n_active", "max_activation", "sum_activation", "n_random", "sum_random", "sum_positive",
    ),
    "pair_stats": (
        "unit", "query_token", "key_token", "n", "n_active", "max_activation", "min_activation", "sum_activation",
        "n_random", "sum_random", "sum_positive",
    ),
    "explanations": (
        "unit", "about", "rank", "explanation", "explainer", "score", "score_kind", "origin", "created_at",
    ),
    "explanation_scores": ("unit", "about", "rank", "score_kind", "score", "origin"),
    "related_units": ("unit", "about", "direction", "sign", "rank", "related_layer", "related_unit", "weight"),
    "related_tokens": ("unit", "about", "basis", "direction", "sign", "rank", "token", "strength"),
    "files": ("unit", "status", "uri", "format", "bytes", "sha256", "etag", "error", "fetched_at"),
}  # fmt: skip
"""The lake's tables, each with the columns of its Parquet parts in order. `files` is a shard's commit."""


BATCH_TABLES: dict[str, tuple[str, ...]] = {
    "answers": (
        "model", "component", "layer", "unit", "batch", "rank", "origin", "explanation", "explainer", "status", "error",
        "scores", "created_at", "prompt_tokens", "completion_tokens", "cost", "run_id", "answer_key",
    ),
    "embeddings": ("explanation_hash", "embedder", "embedding"),
}  # fmt: skip
"""The tables that no shard has, each with its columns in order: a file of theirs is its own commit."""

RAW_COLUMNS = (*TABLES["files"], "content")
"""Columns of a raw pack: what is known of each file, and its bytes. Raw packs are no table of the catalogue."""


def arrow_schema(table: str) -> pa.Schema:
    """Give the Arrow schema of a table's parts (or of raw packs, as `raw`), without the partition columns."""
    names = RAW_COLUMNS if table == "raw" else (TABLES | BATCH_TABLES)[table]
    return pa.schema([(name, ARROW_TYPES[COLUMNS[name].sql_type]) for name in names])

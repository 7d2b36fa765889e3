"""Queries that the SQL page offers to begin with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A question in words, and in SQL."""

    question: str
    sql: str


EXAMPLES = (
    Example(
        "Which units respond most to a token?",
        "SELECT unit_id, score, n, n_active\nFROM top_units(' Paris', k := 20, \"by\" := 'relative')",
    ),
    Example(
        "How selective are the units of each layer?",
        "SELECT layer, median(entropy) AS median_entropy, count(*) AS units\n"
        "FROM units\nWHERE component = 'mlp_post_act' AND model = 'gpt2-xl'\nGROUP BY layer\nORDER BY layer",
    ),
    Example(
        "Which units are the most selective?",
        "SELECT unit_id, entropy, top_token, top_token_share\n"
        "FROM units\nWHERE entropy IS NOT NULL\nORDER BY entropy, unit_id\nLIMIT 25",
    ),
    Example(
        "Which explanations score best?",
        "SELECT unit_id, score, explanation\n"
        "FROM explanations\nWHERE model = 'gpt2-xl'  -- scores of the two models cannot be compared\n"
        "ORDER BY score DESC NULLS LAST\nLIMIT 25",
    ),
    Example(
        "Which heads look at the token before?",
        "SELECT unit_id, previous_token, same_token, first_token, induction\n"
        "FROM head_patterns(component := 'attn_write_norm')\nORDER BY previous_token DESC\nLIMIT 25",
    ),
    Example(
        "Do moments and selectivity go together?",
        "SELECT kurtosis, entropy, unit_id\nFROM units\nWHERE kurtosis IS NOT NULL AND entropy IS NOT NULL\nLIMIT 300",
    ),
    Example(
        "How many units are dead, or the same as another?",
        "SELECT model, component, layer, units, dead, near_dead, duplicate\n"
        "FROM unit_kinds_by_layer\nORDER BY model, component, layer",
    ),
    Example(
        "Where do units fire inside a phrase?",
        "SELECT unit_id, activation, before, matched, after\nFROM contexts('The capital of', k := 20)",
    ),
)
"""The saved examples, in the order in which they are offered."""

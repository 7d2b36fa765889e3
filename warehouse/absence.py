"""Why an answer has no rows: a name that no dataset has, or a part of the lake that was not built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TypeAlias

import polars as pl

from warehouse.box import Parameters
from warehouse.errors import UnknownDataset

Ask: TypeAlias = Callable[[str, Parameters], pl.DataFrame]

_NAMED = "model = coalesce($model, model) AND component = coalesce($component, component)"


def require_known(
    ask: Ask, model: str | None, component: str | None, layer: int | None, with_siblings: bool = False
) -> None:
    """Refuse filters that no unit of any dataset can pass, built or not.

    Args:
        ask: runs SQL over the lake.
        model: the model that was asked for.
        component: the component that was asked for.
        layer: the layer that was asked for.
        with_siblings: whether the datasets that say something of units are meant too, as where files are asked for.

    Raises:
        UnknownDataset: there is no such model or component, or they have no such layer; the message names what is.
    """
    known = ask(
        "SELECT model, component, n_layers FROM datasets WHERE holds = 'activations' OR $with_siblings ORDER BY ALL",
        {"with_siblings": with_siblings},
    )
    for kind, wanted in (("model", model), ("component", component)):
        if wanted is None:
            continue
        names = known[kind].unique(maintain_order=True).to_list()
        known = known.filter(pl.col(kind) == wanted)
        if known.is_empty():
            near = get_close_matches(wanted, names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            where = f" of {model}" if kind == "component" and model is not None else ""
            raise UnknownDataset(f"no {kind} {wanted!r}{where}: {hint}known are {', '.join(names)}")
    n_layers = max(known["n_layers"])
    if layer is not None and not 0 <= layer < n_layers:
        what = " ".join(name for name in (model, component) if name is not None) or "the lake's models"
        raise UnknownDataset(f"no layer {layer}: {what} can have layers 0-{n_layers - 1}")


def describe_gap(ask: Ask, model: str | None, component: str | None, layer: int | None) -> str | None:
    """Say that nothing of what was asked for was built, and what was; None where there is something.

    Args:
        ask: runs SQL over the lake.
        model: the model that was asked for.
        component: the component that was asked for.
        layer: the layer that was asked for.
    """
    filters = {"model": model, "component": component}
    here = ask(
        f"SELECT 1 FROM units WHERE {_NAMED} AND layer = coalesce($layer, layer) LIMIT 1", {**filters, "layer": layer}
    )
    if not here.is_empty():
        return None
    built = ask(
        "SELECT model || '/' || component AS key, list(DISTINCT layer ORDER BY layer) AS layers FROM units "
        "GROUP BY ALL ORDER BY key",
        None,
    )
    if built.is_empty():
        return "the lake has no units yet: 'warehouse build gpt2-small/mlp_post_act --layers 0' makes some"
    what = ", ".join(f"--{name} {value}" for name, value in {**filters, "layer": layer}.items() if value is not None)
    there = ", ".join(f"{key} layers {','.join(map(str, layers))}" for key, layers in built.iter_rows())
    return f"nothing of {what} was built yet: the lake has {there}"


def is_per_pair(ask: Ask, component: str | None) -> bool:
    """Say whether a component was asked for whose activations belong to token pairs."""
    found = ask("SELECT per FROM datasets WHERE component = $component", {"component": component})["per"]
    return len(found) > 0 and bool((found == "token_pair").all())


def explain_no_units(ask: Ask, tokens: Sequence[str], near: Callable[[str], list[str]]) -> str:
    """Say of tokens that no unit responds to whether they are there, and which of the lake's are like them.

    Args:
        ask: runs SQL over the lake.
        tokens: the token, or the query and the key token.
        near: gives the tokens of the lake that are like one.
    """
    what = " with key ".join(map(repr, tokens))
    return f"no unit here is active on {what}{_name_near(find_unknown(ask, tokens), near)}"


def find_unknown(ask: Ask, tokens: Sequence[str]) -> list[str]:
    """Give the tokens on which no unit of the lake is active."""
    known = ask("SELECT token FROM vocabulary WHERE list_contains($tokens, token)", {"tokens": list(tokens)})["token"]
    return [token for token in tokens if token not in known]


def _name_near(tokens: Sequence[str], near: Callable[[str], list[str]]) -> str:
    likes = [(token, near(token)) for token in tokens]
    return "".join(f"; like {token!r} are {', '.join(map(repr, found))}" for token, found in likes if found)


def explain_no_twins(ask: Ask, unit_id: str) -> str:
    """Say why a unit of the lake is like no other."""
    unit = ask(
        "SELECT d.per, u.n_tokens FROM units AS u INNER JOIN datasets AS d USING (model, component) "
        "WHERE u.model = split_part($unit_id, '/', 1) AND u.component = split_part($unit_id, '/', 2) "
        "AND u.layer = TRY_CAST(split_part($unit_id, '/', 3) AS INTEGER) "
        "AND u.unit = TRY_CAST(split_part($unit_id, '/', 4) AS INTEGER)",
        {"unit_id": unit_id},
    )
    for per, n_tokens in unit.iter_rows():
        if per == "token_pair":
            return f"{unit_id} is of a dataset per token pair: only units per token can be compared by their tokens"
        if n_tokens is None:
            return f"{unit_id} is never active, so it has no tokens to compare"
    return f"no unit of those asked for shares one of the 32 strongest tokens of {unit_id}"


def explain_no_context(
    ask: Ask, pattern: str, how: str, component: str | None, near: Callable[[str], list[str]]
) -> str:
    """Say why no unit is active inside a pattern: no text holds it so, or others or none are active there.

    Args:
        ask: runs SQL over the lake.
        pattern: what was looked for.
        how: phrase, substring or regex.
        component: the component that was asked for.
        near: gives the tokens of the lake that are like one.
    """
    if is_per_pair(ask, component):
        return f"{component} is per token pair: contexts are looked for in datasets per token"
    count = "SELECT count(DISTINCT text_key) FROM context_matches($pattern, how := $how)"
    n_texts = ask(count, {"pattern": pattern, "how": how}).item()
    if n_texts:
        return f"{n_texts:,} texts hold {pattern!r}, but no unit of those asked for is active inside it"
    n_inside = ask(count, {"pattern": pattern, "how": "substring"}).item() if how == "phrase" else 0
    if n_inside:
        hint = f"; {n_inside:,} do as a part of their tokens: --how substring"
    else:
        words = [] if how == "regex" else [f" {word}" for word in pattern.split()]
        hint = _name_near([word for word in find_unknown(ask, words) if find_unknown(ask, [word[1:]])], near)
    return f"no text in which a unit is active holds {pattern!r} as a {how}{hint}"

"""Templates to HTML: one Jinja environment, the filter that makes any token safe to look at, and the static files."""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from importlib import resources
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from warehouse.output import printable

_MOST_SHOWN = 400
"""Characters of one text that a page shows: a token can have thousands."""


def visible(text: str, most: int = _MOST_SHOWN) -> str:
    """Make any text safe to look at: unseen characters become signs or escapes, and a lone accent gets a base.

    Escaping for HTML is not done here but by the environment, for every value.
    """
    shown = printable(text)
    if shown and unicodedata.combining(shown[0]):
        shown = "\N{DOTTED CIRCLE}" + shown
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def visible_token(token: str) -> str:
    """Show a token by itself, where its outer spaces must be seen: ` Paris` reads as ␣Paris."""
    shown = visible(token, 60)
    core = shown.strip(" ")
    if not core:
        return "␣" * len(shown) or "∅"
    leading = len(shown) - len(shown.lstrip(" "))
    return "␣" * leading + core + "␣" * (len(shown) - leading - len(core))


def number(value: float | int | None) -> str:
    """Write a number for people: four digits of a float, every digit of an integer."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:.3g}"


def token_url(token: str, **filters: object) -> str:
    """Give the address of a token's page."""
    return "/token?" + query_of(token=token, **filters)


def unit_url(unit_id: str, **options: object) -> str:
    """Give the address of a unit's page."""
    asked = query_of(**options)
    return f"/unit/{quote(unit_id)}" + (f"?{asked}" if asked else "")


def query_of(**values: object) -> str:
    """Write the query of an address; what is None is left out, and a list stands once for each value."""
    return urlencode({name: value for name, value in values.items() if value is not None}, doseq=True, quote_via=quote)


@functools.cache
def static_url(name: str) -> str:
    """Give the address of a static file with a mark that changes when the file does, so that it may be kept."""
    content = resources.files("warehouse.server").joinpath("static", name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


@functools.cache
def environment() -> Environment:
    """Give the environment of the templates: everything is escaped, and a name that is missing is an error."""
    made = Environment(
        loader=PackageLoader("warehouse.server"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"visible": visible, "token": visible_token, "number": number}
    made.globals |= {"token_url": token_url, "unit_url": unit_url, "static_url": static_url, "query_of": query_of}
    return made


def render(template: str, status_code: int = 200, **values: object) -> HTMLResponse:
    """Fill in a template."""
    return HTMLResponse(environment().get_template(template).render(values), status_code)

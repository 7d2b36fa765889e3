"""A real Chromium for tests and pictures of the viewer, and the pages that both look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

from playwright.sync_api import Browser, sync_playwright

from benchmarks.servers import ServerMissing

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the system's Chromium, headless.

    Raises:
        ServerMissing: there is none.
    """
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        raise ServerMissing("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield browser
        browser.close()


def list_pages(neuron: str, head: str, others: tuple[str, ...], token: str) -> Mapping[str, str]:
    """Give the path of every kind of page by its name.

    Args:
        neuron: a unit per token.
        head: a unit per token pair.
        others: units to compare the neuron with.
        token: one that units respond to.
    """
    layer = neuron.rpartition("/")[0]
    text = quote(token, safe="")
    query = quote("SELECT unit_id, entropy, top_token FROM units WHERE entropy IS NOT NULL ORDER BY entropy LIMIT 12")
    return {
        "start": "/",
        "layer": f"/units/{layer}",
        "unit": f"/unit/{neuron}",
        "head": f"/unit/{head}?k=1",
        "record": f"/unit/{neuron}/top/0",
        "head-record": f"/unit/{head}/top/0",
        "token": f"/token?token={text}",
        "compare": "/compare?" + "&".join(f"unit={unit_id}" for unit_id in (neuron, *others)),
        "search": f"/search?q={quote(token.strip())}",
        "explanations": f"/explanations?q={quote(token.strip())}",
        "sql": f"/sql?q={query}",
        "api": "/api",
        "problem": "/unit/gpt2-xl/mlp_post_act/0/3000",
    }

"""The viewer in a real Chromium: no error, no violation of its CSP, and nothing that axe finds serious."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

import warehouse
from benchmarks.servers import ServerMissing
from tests.server.browser import list_pages, open_browser
from tests.server.conftest import Served

AXE = Path(__file__).parents[1] / "servers/node_modules/axe-core/axe.min.js"
NEURON, HEAD, LATENT = "gpt2-xl/mlp_post_act/0/0", "gpt2-small/attn_write_norm/0/0", "gpt2-small/mlp_post_act_ae_v4/0/0"
NAMES = list(list_pages(NEURON, HEAD, (), ""))
OF_LOOKS = ("color-contrast", "link-in-text-block", "scrollable-region-focusable", "target-size")
"""Rules of axe whose findings depend on colours and width; all others are of the document, which stays the same."""
MEASURE_CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((c) => {
      const part = c / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const measured = {};
  for (const sign of ["", " n"]) {
    for (let level = 1; level <= 20; level++) {
      const token = document.createElement("span");
      token.className = `l${level}${sign}`;
      document.querySelector(".text").append(token);
      const style = getComputedStyle(token);
      const [text, ground] = [luminance(style.color), luminance(style.backgroundColor)];
      const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
      measured[token.className] = [contrast, ground, style.textDecorationLine, Number(style.fontWeight)];
    }
  }
  return measured;
}
"""

FIND_SQUEEZED = """
() => [...document.querySelectorAll("td, th")]
  .filter((cell) => cell.offsetParent && cell.innerText.trim().length > 10 && cell.clientWidth < 60)
  .map((cell) => `${cell.innerText.trim()} in ${cell.clientWidth} px`)
"""
"""Cells of tables whose text is longer than a word, and which have no room for one."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with open_browser() as browser:
            yield browser
    except ServerMissing as e:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say(str(e))


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core."""
    if not AXE.exists():
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("axe-core is not installed: make servers")
    return AXE.read_text("utf-8")


@pytest.fixture(scope="module")
def paths(served: Served) -> dict[str, str]:
    with warehouse.open(served.lake.root) as reader:
        token = reader.top_tokens(NEURON, 1)["token"][0]
    return {name: served.url + path for name, path in list_pages(NEURON, HEAD, (LATENT,), token).items()}


@pytest.fixture
def said() -> list[str]:
    """What the console says."""
    return []


@pytest.fixture
def page(browser: Browser, said: list[str]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.on("pageerror", lambda error: said.append(str(error)))

    def listen(message: ConsoleMessage) -> None:
        # That a page's own status is 404 is what one of them is for.
        if message.type in ("error", "warning") and "status of 404" not in message.text:
            said.append(message.text)

    page.on("console", listen)
    yield page
    context.close()


def find_serious(page: Page, *rules: str) -> list[str]:
    """Run axe on a page, every rule of it or those that are named; give its serious and critical findings."""
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found: dict[str, Any] = page.evaluate("options => axe.run(options)", options)
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:200]}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_and_accessible_light_and_wide_and_dark_on_a_phone(
    page: Page, paths: dict[str, str], said: list[str], axe: str, name: str
) -> None:
    page.goto(paths[name])
    page.evaluate(axe)
    assert find_serious(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 740})
    assert find_serious(page, *OF_LOOKS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    levels = page.eval_on_selector_all("h1, h2, h3", "all => all.map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(levels, levels[1:], strict=False))
    assert said == []


def test_no_column_is_squeezed_on_a_phone_and_no_page_moves_sideways(page: Page, paths: dict[str, str]) -> None:
    page.set_viewport_size({"width": 375, "height": 740})
    columns = "unit_id, unit_id AS also_unit_id, top_token, 'in so many words' AS said, entropy, unit, layer, component"
    wide = f"{paths['start']}sql?q={quote(f'SELECT {columns} FROM units LIMIT 20')}"
    for url in (*(paths[name] for name in NAMES), wide):
        page.goto(url)
        assert page.evaluate(FIND_SQUEEZED) == [], url
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, url


@pytest.mark.parametrize(
    ("scheme", "forced"), [("light", "none"), ("dark", "none"), ("light", "active"), ("dark", "active")]
)
def test_text_stands_out_from_every_shade_and_neither_strength_nor_sign_is_by_colour_alone(
    page: Page, paths: dict[str, str], scheme: Any, forced: Any
) -> None:
    page.emulate_media(color_scheme=scheme, forced_colors=forced)
    page.goto(paths["record"])
    measured = page.evaluate(MEASURE_CONTRAST)
    assert len(measured) == 40
    assert min(contrast for contrast, *_ in measured.values()) >= 4.5
    for sign in ("", " n"):
        grounds = [measured[f"l{level}{sign}"][1] for level in range(1, 21)]
        assert grounds == sorted(grounds, reverse=scheme == "light") and len({*grounds}) == 20
        weights = [measured[f"l{level}{sign}"][3] for level in range(1, 21)]
        assert weights == [400] * 9 + [700] * 11
    assert {name.endswith(" n") for name, (_, _, line, _) in measured.items() if "underline" in line} == {True}
    assert all("underline" in line for name, (_, _, line, _) in measured.items() if name.endswith(" n"))
    ramp = page.eval_on_selector_all(".ramp i", "all => all.map((i) => getComputedStyle(i).backgroundColor)")
    assert len({*ramp}) == 20


def test_a_reader_gets_along_by_keyboard(page: Page, paths: dict[str, str]) -> None:
    page.goto(paths["unit"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    text = page.locator(".text").first
    text.focus()
    tokens = text.locator("span[title]")
    strongest = text.locator(".at").get_attribute("title") or ""
    assert float(strongest) == max(float(t.get_attribute("title") or "") for t in tokens.all())
    assert strongest in page.locator("[role=status]").inner_text()
    place = tokens.evaluate_all("all => all.findIndex((t) => t.classList.contains('at'))")
    step, other = ("ArrowLeft", place - 1) if place else ("ArrowRight", 1)
    page.keyboard.press(step)
    assert f"at {other}" in page.locator("[role=status]").inner_text()
    page.keyboard.press("]")
    page.wait_for_url("**/0/1")


def test_pointing_at_a_cell_of_a_map_marks_its_two_tokens(page: Page, paths: dict[str, str]) -> None:
    page.goto(paths["head-record"])
    cell = page.locator(".map rect").first
    cell.hover()
    position = int(cell.get_attribute("data-q") or "")
    marked = page.locator(".text .query")
    assert marked.inner_text() == page.locator(".text span[title]").nth(position).inner_text()
    assert page.locator(".text .key").count() == 1
    assert "→" in page.locator("[role=status]").inner_text()


def test_without_scripts_the_search_leads_to_the_values_all_the_same(browser: Browser, paths: dict[str, str]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(paths["start"])
    page.locator("#q").fill(NEURON)
    page.locator("#q").press("Enter")
    assert page.url == paths["unit"]
    page.locator("a.rank").first.click()
    assert page.locator("table.values tbody tr").count() == page.locator(".text span[title]").count() > 0
    context.close()

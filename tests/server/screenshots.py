"""The pictures of docs/serve.md: `python -m tests.server.screenshots --lake demo/lake` makes them anew."""

from __future__ import annotations

import argparse
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

from tests.server.browser import list_pages, open_browser
from tests.server.conftest import serving
from warehouse.server.settings import ServeSettings

FOLDER = Path(__file__).parents[2] / "docs" / "serve"
NEURON, HEAD = "gpt2-xl/mlp_post_act/0/0", "gpt2-small/attn_write_norm/5/3"
OTHERS = ("gpt2-small/resid_delta_mlp_ae_v1/5/16", "gpt2-small/mlp_post_act_ae_v4/5/0")
PICTURES = (("unit", "light", 1120), ("head", "dark", 1120), ("token", "light", 1120), ("sql", "light", 1120))
"""Page, colours and width in pixels of each picture; and beside these the unit's page on a phone."""
_COLOURS = 256


def take_pictures(lake: str, folder: Path) -> list[Path]:
    """Serve a lake, look at its pages and write what is seen as small PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = list_pages(NEURON, HEAD, OTHERS, " Paris")
    written = []
    with serving(ServeSettings(lake)) as served, open_browser() as browser:
        for name, scheme, width in (*PICTURES, ("unit", "dark", 390)):
            size = {"width": width, "height": 760}
            page = browser.new_page(viewport=size, color_scheme="dark" if scheme == "dark" else "light")  # type: ignore[arg-type]
            page.goto(served.url + paths[name])
            written.append(folder / f"{name}{'-phone' if width < 500 else ''}.png")
            picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
            picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(written[-1], optimize=True)
            page.close()
    return written


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lake", default="demo/lake")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    for path in take_pictures(arguments.lake, arguments.out):
        sys.stdout.write(f"{path} {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()

"""Every page in headless Chromium: does its text fit the width, did its math and pictures load?"""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

from tests.site import browser

WIDTHS, THEMES = (1280, 390), ("light", "dark")

PROBE = """
JSON.stringify([
  document.documentElement.scrollWidth - innerWidth,
  document.querySelectorAll(".katex-error").length,
  document.querySelectorAll("span.math:not(:has(.katex)), div.math:not(:has(.katex))").length,
  [...document.images].filter((image) => image.complete && !image.naturalWidth).length,
])
"""
FAULTS = ("pixels too wide", "equations that KaTeX refuses", "equations not set", "broken images")


def check(site: Path, names: Iterable[str], pictures: Path | None = None) -> list[str]:
    """The faults of every page at both widths and in both themes; `pictures` keeps what is seen."""
    with browser.launch() as port:
        return asyncio.run(visit(port, site, list(names), pictures))


async def visit(port: str, site: Path, names: list[str], pictures: Path | None) -> list[str]:
    tab, faults = await browser.new_tab(port), list[str]()
    for name in names:
        for width in WIDTHS:
            for theme in THEMES:
                await tab.open((site / f"{name}.html").as_uri(), width, theme)
                faults += await faults_of(tab, f"{name} at {width} in the {theme}")
                if pictures is not None:
                    file = f"{name.replace('/', '_')}_{width}_{theme}.png"
                    await tab.picture(pictures / file)
    return faults


async def faults_of(tab: browser.Tab, place: str) -> list[str]:
    counts = json.loads(await tab.ask(PROBE))
    pairs = zip(counts, FAULTS, strict=True)
    return [f"{place}: {count} {fault}" for count, fault in pairs if count > 0]

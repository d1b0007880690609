"""Check the built docs: `python -m tests.site`, after `make docs`; `--screens` opens Chromium.

Words lead to their pages, no table is broken into paragraphs, links lead somewhere, images have
texts, equations are valid LaTeX, and, with `--screens`, every page fits a phone.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import quickjs  # pyright: ignore[reportMissingImports] of the docs extra

from tests.site import browser, screens
from tests.site.pages import Page, all_pages, broken_links
from tests.site.search import Search
from tests.site.words import FIRST, WORDS, Word

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "_build" / "html"
SHORTEST_ALT = 30
"""Letters of the shortest text that says what an image shows."""


def check_words(site: Path, pages: dict[str, Page]) -> list[str]:
    search = Search(site)
    return [fault for word in WORDS for fault in check_word(search, word, set(pages))]


def check_word(search: Search, word: Word, pages: set[str]) -> list[str]:
    """The fault of one word, if it has one."""
    answers = [page for page in word.pages if page in pages]
    first = search.pages(word.query)[:FIRST]
    if not answers:
        return [f"no page answers {word.query!r}: write one of {', '.join(word.pages)}"]
    if not {*answers} & {*first}:
        return [f"the search for {word.query!r} lists {first}, not {answers}"]
    return []


def check_paragraphs(_: Path, pages: dict[str, Page]) -> list[str]:
    return [
        f"{name}: a row of a table is a paragraph, {text[:60]!r}: is there an empty line above?"
        for name, page in pages.items()
        for text in page.paragraphs
        if text.lstrip().startswith("| ")
    ]


def check_links(_: Path, pages: dict[str, Page]) -> list[str]:
    return [
        f"{name}: {link} leads nowhere"
        for name, page in pages.items()
        for link in sorted({*broken_links(page)})
    ]


def check_images(_: Path, pages: dict[str, Page]) -> list[str]:
    return [
        f"{name}: the alt text of {image.source} is {image.alt!r}: say what is seen"
        for name, page in pages.items()
        for image in page.images
        if len(image.alt) < SHORTEST_ALT or image.alt.endswith(".png")
    ]


def check_math(site: Path, pages: dict[str, Page]) -> list[str]:
    """KaTeX itself reads every equation of every page."""
    engine = quickjs.Context()
    engine.eval((site / "_static" / "katex" / "katex.min.js").read_text("utf-8"))
    faults = list[str]()
    places = {formula: name for name, page in pages.items() for formula in page.formulas}
    for (text, display), name in places.items():
        options = json.dumps({"displayMode": display, "throwOnError": True})
        try:
            engine.eval(f"katex.renderToString({json.dumps(text)}, {options})")
        except quickjs.JSException as error:
            faults.append(f"{name}: {text}: {error}")
    return faults


CHECKS: dict[str, Callable[[Path, dict[str, Page]], list[str]]] = {
    "words that users search for": check_words,
    "rows of tables": check_paragraphs,
    "links": check_links,
    "texts of images": check_images,
    "equations": check_math,
}


def main() -> int:
    """Print the faults of each check; the status is 1 where there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.site", description=__doc__)
    parser.add_argument("--site", type=Path, default=SITE, help="the folder of the built docs")
    parser.add_argument("--screens", action="store_true", help="open every page in Chromium")
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of every page")
    options = parser.parse_args()
    pages = all_pages(options.site)
    faults = {name: check(options.site, pages) for name, check in CHECKS.items()}
    if options.screens and browser.find() is None:
        faults["screens"] = ["there is no Chromium: apt-get install chromium"]
    elif options.screens:
        if options.pictures is not None:
            options.pictures.mkdir(parents=True, exist_ok=True)
        faults["screens"] = screens.check(options.site.resolve(), pages, options.pictures)
    for name, lines in faults.items():
        print(f"{name}: {len(lines) or 'no'} faults on {len(pages)} pages")
        print("".join(f"  {line}\n" for line in lines), end="")
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())

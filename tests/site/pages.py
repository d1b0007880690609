"""The pages of the built docs, read from their HTML: paragraphs, images, links, anchors, math."""

import functools
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

HIDDEN = ("search", "genindex", "py-modindex")
"""Pages without a text of ours."""


class Image(NamedTuple):
    """An image: its file and its text for those who do not see it."""

    source: str
    alt: str


class Page(HTMLParser):
    """One page; `feed` fills its lists."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.paragraphs, self.formulas = list[str](), list[tuple[str, bool]]()
        self.images, self.links, self.anchors = list[Image](), list[str](), set[str]()
        self.within_article, self.open = False, ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values["id"]} if "id" in values else set()
        if tag == "article":
            self.within_article = True
        if tag == "img" and self.within_article:
            self.images.append(Image(values.get("src", ""), values.get("alt", "")))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "p" and self.within_article:
            self.paragraphs.append("")
            self.open = "p"
        if values.get("class") == "math":
            self.formulas.append(("", tag == "div"))
            self.open = "math"

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self.within_article = False
        if self.open in ("math", tag):
            self.open = "p" if self.open == "math" and tag == "span" else ""

    def handle_data(self, data: str) -> None:
        if self.open == "p" and self.paragraphs:
            self.paragraphs[-1] += data
        if self.open == "math":
            text, display = self.formulas[-1]
            self.formulas[-1] = (text + data, display)


@functools.cache
def read(path: Path) -> Page:
    return Page(path)


def all_pages(site: Path) -> dict[str, Page]:
    """Every page of the docs by its name; the source code that they link to is left out."""
    names = (path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html"))
    own = (name for name in sorted(names) if not name.startswith("_") and name not in HIDDEN)
    return {name: read(site / f"{name}.html") for name in own}


def broken_links(page: Page) -> list[str]:
    """The links within the site that lead to no file or to no anchor."""
    return [link for link in page.links if is_broken(page.path, link)]


def is_broken(path: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.exists():
        return True
    anchor = unquote(parts.fragment)
    return bool(anchor) and target.suffix == ".html" and anchor not in read(target).anchors

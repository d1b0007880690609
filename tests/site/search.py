"""The search of the built docs, by Sphinx' own scripts: which pages it lists for a query."""

import json
from pathlib import Path

import quickjs  # pyright: ignore[reportMissingImports] of the docs extra

STUBS = """
var window = globalThis, console = {debug() {}, info() {}, log() {}};
var DOCUMENTATION_OPTIONS = {BUILDER: "html", FILE_SUFFIX: ".html", LINK_SUFFIX: ".html"};
var SPHINX_HIGHLIGHT_ENABLED = false;
var document = {getElementById() { return null; }};
var _ready = () => {}, _ = (text) => text;
"""
SCRIPTS = ("base-stemmer.js", "english-stemmer.js", "language_data.js", "searchtools.js")
LIST = """
JSON.stringify([...new Set(
  Search._performSearch(...Search._parseQuery(QUERY)).reverse().map((result) => result[0])
)])
"""


class Search:
    """The search of a built site."""

    def __init__(self, site: Path) -> None:
        scripts = [(site / "_static" / name).read_text("utf-8") for name in SCRIPTS]
        self.engine = quickjs.Context()
        # One evaluation: a `const` of one script is seen by the next as in a page.
        index = (site / "searchindex.js").read_text("utf-8")
        self.engine.eval("\n;".join([STUBS, *scripts, "globalThis.Search = Search;", index]))

    def pages(self, query: str) -> list[str]:
        """The pages that the search lists, each once, the best first."""
        # Sphinx pops its results from the end of their list: the best is the last.
        return json.loads(self.engine.eval(LIST.replace("QUERY", json.dumps(query))))

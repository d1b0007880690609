"""Sphinx settings: furo, myst-nb, docstrings as the API reference, generated tables.

The build reads nothing from the network.
"""

import importlib.metadata
import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode

os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported, which `_generate` does
sys.path.insert(0, str(Path(__file__).parent))

import _typeset
from _generate import fill
from _signatures import short_signature

project = "gradtx"
author = "the gradtx authors"
copyright = author
release = importlib.metadata.version("gradtx")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]
default_role = "py:obj"  # `adam` in a docstring is a link where its target exists

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120

autodoc_member_order = "bysource"
# Builders have flags in their signature that are not in the source of the function.
autodoc_preserve_defaults = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_math_renderer = "katex"
html_theme = "furo"
html_title = f"gradtx {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("tables.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0072B2",
        "color-brand-content": "#0072B2",
        "code-font-size": "77%",
    },
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def escape(app: Any, kind: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Change a docstring into reStructuredText.

    A letter after a literal, as in `x`s, needs a separator. |g| would be a substitution.
    """
    lines[:] = _typeset.docstring(lines)
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = re.split(r"(`[^`]+`)", line)
            prose = [part if part.startswith("`") else plain(part) for part in parts]
            lines[number] = re.sub(
                r"(`[^`]+`)(\w?)",
                lambda literal: "\\ ".join(filter(None, literal.groups())),
                "".join(prose),
            )


def plain(text: str) -> str:
    """Prose whose pipes and stars, as in *args, are no marks."""
    return re.sub(r"(?<![\\*\w])(\*{1,2})(?=\w+(?![\w*]))", star, text.replace("|", "\\|"))


def star(match: re.Match[str]) -> str:
    return match[0].replace("*", "\\*")


def shorten(app: Any, kind: str, name: str, value: Any, options: Any, *texts: Any) -> Any:
    """Aliases of types by their names."""
    return short_signature(value)


def fill_tables(app: Any, page: str, source: list[str]) -> None:
    """Render the tables anew, so that a build never shows those of an older docstring.

    Their equations, Unicode in the repository, are typeset.
    """
    lines = fill(source[0]).split("\n")
    if page == "optimizers" or page.startswith("api"):
        lines = [_typeset.markdown_row(line) if line.startswith("| ") else line for line in lines]
    source[0] = "\n".join(lines)


def show_math(writer: Any, node: Any) -> None:
    """LaTeX for KaTeX, which _static/math.js calls."""
    writer.body.append(f'<span class="math">{writer.encode(node.astext())}</span>')
    raise SkipNode


def show_display(writer: Any, node: Any) -> None:
    writer.body.append(f'<div class="math">{writer.encode(node.astext())}</div>')
    raise SkipNode


def load_katex(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    if app.env.domains.math_domain.has_equations(page):
        app.add_css_file("katex/katex.min.css")
        app.add_js_file("katex/katex.min.js", defer="defer")
        app.add_js_file("math.js", defer="defer")


def setup(app: Any) -> None:
    app.add_html_math_renderer("katex", (show_math, None), (show_display, None))
    app.connect("html-page-context", load_katex)
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-process-signature", shorten)
    app.connect("source-read", fill_tables)

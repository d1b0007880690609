"""Equations of docstrings become LaTeX: each part of the notation, and all of every optimizer."""

import importlib
import inspect
import re
import sys
import unicodedata

import pytest

import gradtx
from tests.support.places import ROOT

sys.path.insert(0, str(ROOT / "docs"))
typeset, generate = importlib.import_module("_typeset"), importlib.import_module("_generate")
latex = importlib.import_module("_latex")

FORMULA = re.compile(r":math:`([^`]*)`|^   (\\begin\{aligned\}.*)$", re.MULTILINE)


def translate(text: str) -> str:
    """A text with its statements as `{math}`, for short tests."""
    return typeset.inline(text, frozenset(), "{math}")


@pytest.mark.parametrize(
    ("text", "math"),
    [
        ("θ ← θ − η (u + λ θ)", r"\theta \leftarrow \theta - \eta \, (u + \lambda \, \theta)"),
        ("β1 in [0, 1)", r"\beta_{1} \in [0, 1)"),
        ("√(r̂ + ε_root)", r"\sqrt{\hat{r} + \varepsilon_{\mathrm{root}}}"),
        ("1 − β1^(t+1)", r"1 - \beta_{1}^{t + 1}"),
        ("Q_Lᵀ G Q_R", r"Q_{L}^{\top} \, G \, Q_{R}"),
        ("max(‖g‖², ε)", r"\max(\lVert g\rVert ^{2}, \varepsilon)"),
        ("r ≥ 1e-8", r"r \ge 10^{-8}"),
        ("u = Σ_{j ≤ i} g_j", r"u = \sum_{j \le i} \, g_{j}"),
        ("m = U Σ Vᵀ", r"m = U \, \Sigma \, V^{\top}"),
        ("v* ← v", r"v^{*} \leftarrow v"),
    ],
)
def test_notation(text: str, math: str) -> None:
    assert translate(text) == f"{{math}}`{math}`"


@pytest.mark.parametrize(
    "text",
    [
        "a step of k-th order, or a mean",
        "1e-4 to 3e-3, after a warmup",
        "arXiv 1412.6980, Algorithm 1",
        "`w = w − η g` is code",
        "x = y + (a word)",  # it would be cut in the middle
    ],
)
def test_prose_stays_prose(text: str) -> None:
    assert translate(text) == text


def test_an_article_is_not_a_factor() -> None:
    assert translate("with η a number") == r"with {math}`\eta` a number"
    assert translate("η 3 to 10 times smaller") == r"{math}`\eta` 3 to 10 times smaller"


def test_a_list_of_updates_is_displayed() -> None:
    lines = typeset.docstring(["For every array: m ← β m + g, θ ← θ − η m / (√r + ε), with r."])
    assert lines[0] == "For every array:" and lines[2] == ".. math::"
    assert r"m &\leftarrow \beta \, m + g \\ \theta &\leftarrow" in lines[4]
    assert r"\frac{m}{\sqrt{r} + \varepsilon}, \end{aligned}" in lines[4]
    assert lines[-2] == r"with \ :math:`r`\ ."


def test_examples_fields_and_tables_keep_their_lines() -> None:
    kept = [">>> w - 0.1 * g", "0.5", "", "===  ===", "β   γ", "===  ===", ""]
    assert typeset.docstring(kept) == kept
    (field,) = typeset.docstring([":param b1: β1 ≥ 0, the", "           decay."])
    assert field == r":param b1: \ :math:`\beta_{1} \ge 0`\ , the decay."


def test_a_table_of_markdown_is_a_directive() -> None:
    lines = typeset.docstring(["| shape | f |", "|---|---|", "| `cosine` | w = β p |"])
    assert lines[:3] == [".. list-table::", "   :header-rows: 1", ""]
    assert lines[3:5] == ["   * - shape", "     - f"]
    assert lines[6] == r"     - \ :math:`w = \beta \, p`\ "


def test_a_row_of_a_table_is_escaped_around_its_math() -> None:
    row = typeset.markdown_row(r"| [`f`](#gradtx.f) | u = g \|u\|, v\* and \|x |")
    assert row == r"| [`f`](#gradtx.f) | {math}`u = g \, \lvert u\rvert`, v\* and \|x |"


def signs(text: str) -> list[str]:
    """The letters and digits of an equation, in order, whichever form it has."""
    for letter, name in latex.GREEK.items():
        text = re.sub(re.escape(name) + r"(?![a-z])", letter, text)
    text = re.sub(r"\\(?:math|operator)\w+\{(\w+)\}|\\text\{([^}]*)\}", r"\1\2", text)
    text = re.sub(r"\\(?:exp|log|max|min|cos|sin|tanh)(?![a-z])", lambda match: match[0][1:], text)
    text = unicodedata.normalize("NFKD", re.sub(r"\\[A-Za-z]+", " ", text))
    return [sign for sign in text if sign.isalnum()]


@pytest.mark.parametrize("name", generate.optimizers())
def test_the_updates_of_an_optimizer_are_typeset_and_lose_nothing(name: str) -> None:
    text = (inspect.getdoc(getattr(gradtx, name)) or "").split("\nWhen:")[0]
    result = "\n".join(typeset.docstring(text.split("\n")))
    formulas = [inline or display for inline, display in FORMULA.findall(result)]
    assert formulas and "←" not in FORMULA.sub("", result), result
    assert all(formula.count("{") == formula.count("}") for formula in formulas)
    for math in typeset.statements(text):
        source = text[math.start : math.end]
        if "Σ" not in source and "∛" not in source and "ᵀ" not in source and "^(" not in source:
            formula = latex.latex(math.node, display=False)
            powers = re.sub(r"10\^\{(-?\d+)\}", r"1e\1", formula)
            assert sorted(signs(powers)) == sorted(signs(re.sub(r" in (?=[\[({])", " ", source))), (
                source,
                formula,
            )

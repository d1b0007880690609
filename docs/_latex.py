"""Write trees of equations as LaTeX, with the signs that equations of docstrings consist of."""

import unicodedata
from typing import NamedTuple

GREEK_NAMES = (
    r"\alpha \beta \gamma \delta \varepsilon \zeta \eta \theta \iota \kappa \lambda \mu \nu \xi \pi"
    r" \rho \sigma \tau \upsilon \varphi \chi \psi \omega"
    r" \Gamma \Delta \Theta \Lambda \Xi \Pi \Sigma \Phi \Psi \Omega"
)
GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ", GREEK_NAMES.split(), strict=True))
ACCENTS = {"\u0302": r"\hat", "\u0303": r"\tilde", "\u0304": r"\bar", "\u0307": r"\dot"}
RELATIONS = {
    **{"←": r"\leftarrow", "→": r"\to", "=": "=", "<": "<", ">": ">", "≥": r"\ge", "≤": r"\le"},
    **{"∈": r"\in", "≈": r"\approx", "≠": r"\ne", "∝": r"\propto", "≪": r"\ll", "≫": r"\gg"},
}
PRODUCTS = {"·": r"\cdot", "×": r"\times", "⊙": r"\odot", "⊗": r"\otimes", "/": "/"}
SUMS = {"+": "+", "−": "-", "±": r"\pm"}
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ᵀᵗᵖᵏⁿ", [*"0123456789-+", r"\top", *"tpkn"], strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ᵢⱼₜₖ", "0123456789+-ijtk", strict=True))
SIGNS = {"∞": r"\infty", "…": r"\dots", "½": r"\tfrac12", "∇": r"\nabla", "∂": r"\partial"}
BRACKETS = {"(": ")", "[": "]", "{": "}", "⟨": "⟩"}
DELIMITERS = {
    **{"{": r"\{", "}": r"\}", "⟨": r"\langle", "⟩": r"\rangle"},
    **{"|": (r"\lvert", r"\rvert"), "‖": (r"\lVert", r"\rVert")},
}
FUNCTION_NAMES = (
    "max min sign mean rms RMS clip diag orth exp log tanh base tr std var median sum expm1 log1p"
    " triu tril cos sin"
)
FUNCTIONS = FUNCTION_NAMES.split()
NAMES = ("fan_in", "fan_out", "count")
OWN_COMMAND = {"max", "min", "exp", "log", "tanh", "cos", "sin"}


class Node(NamedTuple):
    """A part of an equation: its operator and the nodes or strings below."""

    kind: str
    parts: tuple["Node | str", ...]


def index(text: str) -> str:
    """A subscript: one letter each of `_ij`, one word of `_root`."""
    name = text.removeprefix("_")
    if name and name[0] in LOWERED:
        return "".join(LOWERED[sign] for sign in name)
    if len(name) <= 2 or name == "*":
        return "".join(GREEK.get(sign, sign) + " " * (sign in GREEK) for sign in name)
    return rf"\mathrm{{{name}}}"


def number(text: str) -> str:
    digits, _, exponent = text.replace("−", "-").partition("e")
    if not exponent:
        return digits
    return (rf"{digits} \cdot " if digits != "1" else "") + f"10^{{{exponent}}}"


def symbol(text: str) -> str:
    if text in SIGNS:
        return SIGNS[text]
    if text in NAMES:
        return rf"\mathrm{{{text.replace('_', chr(92) + '_')}}}"
    letter, *marks = unicodedata.normalize("NFD", text)
    name = GREEK.get(letter, letter)
    return f"{ACCENTS[marks[0]]}{{{name}}}" if marks else name


def strip(node: Node) -> Node:
    """A node without its brackets: a root or a fraction shows the extent itself."""
    inner = node
    while inner.kind in ("power", "product", "sum", "relation"):
        if len([part for part in inner.parts if part]) != 1:
            return node
        inner = next(part for part in inner.parts if isinstance(part, Node))
    is_simple = inner.kind == "group" and inner.parts[0] == "(" and len(inner.parts) == 3
    return inner.parts[1] if is_simple else node  # pyright: ignore[reportReturnType]


def latex(node: Node | str, *, display: bool) -> str:
    """An equation as LaTeX; a fraction is one in a display, and a slash in a line."""
    if isinstance(node, str):
        return node
    parts = node.parts
    if node.kind == "power":
        base, primes, lower, upper = (latex(part, display=display) for part in parts)
        return f"{base}{primes}{lower and f'_{{{lower}}}'}{upper and f'^{{{upper}}}'}"
    if node.kind == "fraction" and display:
        above, below = (latex(strip(part), display=display) for part in parts)  # pyright: ignore[reportArgumentType]
        return rf"\frac{{{above}}}{{{below}}}"
    if node.kind in ("√", "∛"):
        return rf"\sqrt{'' if node.kind == '√' else '[3]'}{{{latex(parts[0], display=display)}}}"
    return joined(node, [latex(part, display=display) for part in parts])


def joined(node: Node, texts: list[str]) -> str:
    """The LaTeX of a node from that of its parts."""
    if node.kind == "group":
        opening, *items, closing = texts
        inner = ", ".join(items)
        return delimiter(opening, inner, 0) + inner + delimiter(closing, inner, 1)
    if node.kind == "applied":
        return "".join(texts)
    if node.kind == "call":
        name, below, arguments = texts
        command = rf"\{name}" if name in OWN_COMMAND else rf"\operatorname{{{name}}}"
        return f"{command}{below and f'_{{{below}}}'}{arguments}"
    if node.kind == "words":
        *items, words, last = texts
        return rf"{', '.join(items)} \text{{ {words} }} {last}"
    if node.kind == "product":
        signs = {*PRODUCTS.values(), r"\,"}
        pairs = zip(texts, [*texts[1:], r"\,"], strict=True)
        return " ".join(one if {one, next_} & signs else rf"{one} \," for one, next_ in pairs)
    return (" / " if node.kind == "fraction" else " ").join(texts)


def delimiter(sign: str, inner: str, side: int) -> str:
    """A bracket; it grows where there is a fraction inside."""
    command = DELIMITERS.get(sign, sign)
    command = command[side] if isinstance(command, tuple) else command
    grows = rf"\{('left', 'right')[side]}" if r"\frac" in inner and sign else ""
    return f"{grows}{command}" + " " * command[-1:].isalpha()

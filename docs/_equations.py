"""Read the Unicode equations of docstrings, as `θ ← θ − η m̂ / (√r̂ + ε)`, into trees."""

import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from _latex import (
    BRACKETS,
    FUNCTIONS,
    GREEK,
    LOWERED,
    NAMES,
    PRODUCTS,
    RAISED,
    RELATIONS,
    SIGNS,
    SUMS,
    Node,
    index,
    latex,
    number,
    strip,
    symbol,
)

T = TypeVar("T")
LETTER = f"[A-Za-z{''.join(GREEK)}ĝĥŝâêîôûĉĵŵŷẑḡ][\u0302\u0303\u0304\u0307]?"
TOKEN = re.compile(
    rf"""
    (?P<code>`[^`]*`)
  | (?P<word>\w\.\w\.|\d+-[a-z]+|[A-Za-zÀ-ɏ](?:[-’'][A-Za-zÀ-ɏ]+)+|fan_in|fan_out|expm1|log1p
      |[A-Za-zÀ-ɏ][A-Za-zÀ-ɏ]+(?:[-_'’]\w+)*)
  | (?P<number>\d+(?:\.\d+)?(?:e[-−]?\d+)?)
  | (?P<letter>{LETTER}(?![A-Za-zÀ-ɏ]))
  | (?P<sub>_(?:\{{[^}}]*\}}|[A-Za-z0-9{"".join(GREEK)}]+|\*)|[{"".join(LOWERED)}]+)
  | (?P<sup>[{"".join(RAISED)}]+)
  | (?P<prime>'(?![A-Za-z]))
  | (?P<space>\s+)
  | (?P<sign>.)
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    spaced: bool


class Fail(Exception):
    """The text at this place is not math."""


def tokens(text: str) -> list[Token]:
    """The tokens of a text; a space is a mark of the token behind it."""
    found, spaced = list[Token](), True
    for match in TOKEN.finditer(text):
        if match.lastgroup == "space":
            spaced = True
        else:
            found.append(Token(str(match.lastgroup), match[0], match.start(), spaced))
            spaced = False
    return [*found, Token("end", "", len(text), True)]


class Parser:
    """A reader of one statement; `place` is the token that it reads next."""

    def __init__(self, stream: list[Token], place: int) -> None:
        self.stream, self.place, self.bars = stream, place, ""

    @property
    def next(self) -> Token:
        return self.stream[self.place]

    def take(self, *texts: str) -> Token | None:
        if self.next.text in texts and self.next.kind not in ("code", "end"):
            self.place += 1
            return self.stream[self.place - 1]
        return None

    def statement(self) -> Node:
        parts: list[Node | str] = [self.sum()]
        while True:
            before = self.place
            relation = self.take(*RELATIONS) or self.membership()
            if relation is None:
                break
            try:
                right = self.interval() if relation.text == "in" else self.sum()
            except Fail:
                self.place = before
                break
            parts += [RELATIONS.get(relation.text, r"\in"), right]
        return Node("relation", tuple(parts))

    def membership(self) -> Token | None:
        """`in` before an interval or a set is ∈."""
        opening, *inner = [one.text for one in self.stream[self.place + 1 : self.place + 6]] or [""]
        is_range = opening in ("[", "(") and "," in inner
        return self.take("in") if opening == "{" or is_range else None

    def interval(self) -> Node:
        opening = self.take("[", "(", "{")
        if opening is None:
            raise Fail
        items = self.items()
        closing = self.take("]", ")", "}")
        if closing is None:
            raise Fail
        return Node("group", (opening.text, *items, closing.text))

    def sum(self) -> Node:
        leading = self.take(*SUMS)
        parts: list[Node | str] = [*([SUMS[leading.text]] if leading else []), self.product()]
        while True:
            before = self.place
            sign = self.take(*SUMS)
            if sign is None:
                break
            try:
                right = self.product()
            except Fail:
                self.place = before
                break
            parts += [SUMS[sign.text], right]
        return Node("sum", tuple(parts))

    def product(self) -> Node:
        parts: list[Node | str] = [self.power()]
        while True:
            before = self.place
            sign = self.take(*PRODUCTS)
            try:
                if sign is None and (self.is_article() or self.is_count()):
                    break
                applies = self.next.text == "(" and not self.next.spaced
                right = self.power()
            except Fail:
                self.place = before
                break
            if applies and sign is None:  # d(m) is a function at m
                parts[-1] = Node("applied", (parts[-1], right))
            elif sign is not None and sign.text == "/":
                parts[-1] = Node("fraction", (parts[-1], right))
            else:
                parts += [*([PRODUCTS[sign.text]] if sign else []), right]
        return Node("product", tuple(parts))

    def is_article(self) -> bool:
        """Whether the next letter is a word: "a" without an index, behind a space."""
        following = self.stream[self.place + 1] if self.next.kind != "end" else self.next
        is_word = self.next.text in ("a", "A", "I", "count") and self.next.spaced
        return is_word and following.kind not in ("sub", "sup", "prime")

    def is_count(self) -> bool:
        """Whether a number behind a factor belongs to the prose: "η 3 to 10 times smaller"."""
        following = self.stream[min(self.place + 1, len(self.stream) - 1)]
        return self.next.kind == "number" and following.text != "^" and following.kind != "sup"

    def power(self) -> Node:
        """An atom with its indices, exponents and primes. Σ is a sum, but for that of U Σ Vᵀ."""
        is_first = self.place == 0 or self.stream[self.place - 1].kind in ("sign", "word")
        base = self.atom()
        lower, upper, primes = "", "", ""
        while not self.next.spaced:
            token = self.next
            is_index = base.kind == "symbol" and token.kind == "number" and not (lower or upper)
            if token.text.startswith("_{"):
                lower += self.braced(token.text[2:-1])
            elif token.kind == "sub" or is_index:
                lower += index(token.text)
            elif token.kind == "sup":
                upper += "".join(RAISED[sign] for sign in token.text)
            elif token.text == "*" and not glued(self.stream[self.place + 1]):
                upper += "*"
            elif token.kind == "prime":
                primes += "'"
            elif token.text == "^":
                self.place += 1
                upper += self.exponent()
                continue
            else:
                break
            self.place += 1
        if base.parts == (r"\Sigma",) and (lower or is_first):
            base = Node("symbol", (r"\sum",))
        return Node("power", (base, primes, lower, upper))

    def braced(self, text: str) -> str:
        """The index of `_{j ≤ i}`."""
        inner = Parser(tokens(text), 0)
        node = inner.statement()
        if inner.next.kind != "end":
            raise Fail
        return latex(node, display=False)

    def exponent(self) -> str:
        sign = "-" if self.take("−") else ""
        node = self.atom()
        inner = Node("group", ("", *node.parts[1:-1], "")) if node.kind == "group" else node
        return sign + latex(inner, display=False)

    def atom(self) -> Node:
        token = self.next
        if token.kind in ("number", "letter") or token.text in (*SIGNS, *NAMES):
            self.place += 1
            is_number = token.kind == "number"
            text = number(token.text) if is_number else symbol(token.text)
            return Node("number" if is_number else "symbol", (text,))
        if token.text in FUNCTIONS or token.text.partition("_")[0] in FUNCTIONS:
            return self.call()
        if token.kind == "word" and token.text.isalpha() and self.is_call():
            return self.call()
        if root := self.take("√", "∛"):
            return Node(root.text, (strip(self.power()),))
        if token.text in BRACKETS:
            self.place += 1
            items = self.items()
            if self.take(BRACKETS[token.text]) is None:
                raise Fail
            return Node("group", (token.text, *items, BRACKETS[token.text]))
        if token.text in ("|", "‖") and token.text not in self.bars:
            return self.bar()
        raise Fail

    def is_call(self) -> bool:
        """Whether a bracket opens directly behind the next token."""
        behind = self.stream[self.place + 1]
        return behind.text == "(" and not behind.spaced

    def bar(self) -> Node:
        opening = self.next.text
        self.place += 1
        inner = self.within(self.bars + opening, self.sum)
        if self.take(opening) is None:
            raise Fail
        return Node("group", (opening, inner, opening))

    def call(self) -> Node:
        name, _, below = self.next.text.partition("_")
        self.place += 1
        if self.next.kind == "sub":
            below = self.next.text[1:]
            self.place += 1
        if self.next.text in ("|", "‖") and self.next.text not in self.bars:
            return Node("call", (name, index(below), self.bar()))
        if self.next.text == "(":
            return Node("call", (name, index(below), self.call_arguments()))
        argument = self.next
        if name in ("log", "cos", "sin"):
            return Node("call", (name, index(below), Node("product", (r"\,", self.power()))))
        if below and argument.kind == "letter":  # max_j v_ij
            return Node("call", (name, index(below), Node("product", (r"\,", self.power()))))
        raise Fail

    def call_arguments(self) -> Node:
        """Arguments in brackets; words among them, as in `mean(g² in b)`, stay words."""
        self.place += 1
        parts: list[Node | str] = [*self.items()]
        if self.next.kind == "word":
            words = self.next.text
            self.place += 1
            parts = [Node("words", (*parts, words, self.sum()))]
        if self.take(")") is None:
            raise Fail
        return Node("group", ("(", *parts, ")"))

    def items(self) -> list[Node]:
        """Expressions, separated by commas."""
        return self.within("", self.listed)

    def listed(self) -> list[Node]:
        items = [self.statement()]
        while self.take(","):
            items.append(self.statement())
        return items

    def within(self, bars: str, read: Callable[[], T]) -> T:
        """Read a part in which the bars in `bars` are open, so that the next one closes."""
        before, self.bars = self.bars, bars
        try:
            return read()
        finally:
            self.bars = before


def glued(token: Token) -> bool:
    """Whether a word goes on behind a statement."""
    return not token.spaced and token.kind in ("word", "letter", "number", "code")


def acts(token: Token) -> bool:
    return token.text in (*RELATIONS, *PRODUCTS, *SUMS, "^")

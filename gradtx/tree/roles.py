"""What a parameter is for, by its path: embeddings, heads, norms and routers, of which matrix
methods keep away.
"""

import re

EMBEDDINGS = re.compile(
    r"(^|/)(wte|wpe|[^/]*embed[^/]*|([^/]*_)?emb|pos|cls_token)(/|$)", re.IGNORECASE
)
"""Tables of rows, of which a step uses few."""
HEADS = re.compile(r"(^|/)(([^/]*_)?head|logits|classifier)(/|$)", re.IGNORECASE)
"""The last matrix of a network, whose outputs are classes or tokens."""
NORMS = re.compile(
    r"(^|/)(scale|bias|b|gamma|beta|[^/]*norm[^/]*|rms|ln(_?[0-9f]+)?)(/|$)", re.IGNORECASE
)
"""Vectors by what they do, even where layers are stacked."""
ROUTERS = re.compile(r"(^|/)routers?(/|$)", re.IGNORECASE)
"""Matrices that choose experts."""

PARAMETER_ROLES = {
    "an embedding": EMBEDDINGS,
    "a head": HEADS,
    "a norm or bias": NORMS,
    "a router": ROUTERS,
}
"""The roles of parameters that are not hidden matrices, by a part of their name."""


def parameter_role(path: str) -> str | None:
    """The role that the path of a parameter names; None: it may be a hidden matrix."""
    return next(
        (kind for kind, expression in PARAMETER_ROLES.items() if expression.search(path)), None
    )


def is_table(path: str) -> bool:
    """Whether a parameter is an embedding or a head: few of its rows have a gradient at a step,
    which codes of a block keep badly.
    """
    return bool(EMBEDDINGS.search(path) or HEADS.search(path))

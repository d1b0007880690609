"""The public names of gradtx, loaded: a namespace in which a repr evaluates."""

from typing import Any

import gradtx
from gradtx._lazy import exports


def public_names() -> dict[str, Any]:
    """Every public name with its object."""
    return {name: getattr(gradtx, name) for name in exports("gradtx")}

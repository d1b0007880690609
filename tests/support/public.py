"""The public names of gradtx, loaded: a namespace in which a repr evaluates."""

from typing import Any

import gradtx


def public_names() -> dict[str, Any]:
    """Every name of `gradtx.__all__` with its object."""
    return {name: getattr(gradtx, name) for name in gradtx.__all__}

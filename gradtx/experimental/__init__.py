"""Experimental namespaces, as Optax has them: names here may still change."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the public names, each imported when it is used
    from gradtx.experimental import aggregating as aggregating
else:
    __getattr__, __dir__, __all__ = attach(__name__)

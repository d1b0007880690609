"""Recipes: whole optimizers for a kind of model, from parts."""

from typing import TYPE_CHECKING

from gradtx._lazy import attach

if TYPE_CHECKING:  # the public names, each imported when it is used
    from gradtx.recipes.transformer import transformer as transformer
else:
    __getattr__, __dir__, __all__ = attach(__name__)

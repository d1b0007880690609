"""A container that looks at its arrays when it is made, as some libraries' modules do."""

from typing import Any

import jax
from jax.tree_util import GetAttrKey


@jax.tree_util.register_pytree_with_keys_class
class Layer:
    """A kernel and a bias; whatever it is filled with has a shape and a dtype, or is None."""

    def __init__(self, kernel: Any, bias: Any) -> None:
        self.kernel, self.bias = kernel, bias
        self.types = [None if one is None else (one.shape, one.dtype) for one in (kernel, bias)]

    def tree_flatten_with_keys(self) -> tuple[Any, None]:
        return ((GetAttrKey("kernel"), self.kernel), (GetAttrKey("bias"), self.bias)), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: Any) -> "Layer":
        return cls(*children)

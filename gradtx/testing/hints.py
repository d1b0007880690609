"""For every law, what commonly breaks it and what to do."""

from collections.abc import Callable
from typing import Any

HINTS = {
    "pure": "A rule uses no global variable and changes no argument in place.",
    "jit_equals_eager": "A rule reads no value that Python knows only outside of jit.",
    "scan_carry": "`init` makes every slot in the shape and dtype that `update` returns.",
    "one_compilation": "Declare numbers as data (`gradtx.Hyperparam`), so that they are traced.",
    "like_gradients": "Return the update in the shape of the gradient.",
    "leaves_alone": "A rule works for arrays of shape (), and uses no fixed index.",
    "leaf_order": "A rule depends neither on the order nor on the names of the leaves.",
    "dtypes": "Make slots by gradtx's `zeros(param)`, which are float32 at least.",
    "float64": "Write no dtype into the rule: take that of the gradient.",
    "complex": "Use `abs_sq` for squares, or pass real_only=True.",
    "zero_gradient": "Guard each division by a number that may be 0: add eps, or use jnp.where.",
    "contained": "Multiply no entry by a sum over others without `finite`; 0 * nan is nan.",
    "partition": "A rule on one array sees that array alone; it counts no leaves of the tree.",
    "vmap_definition": "Compute with a hyperparameter as with an array: no `if`, no `float()`.",
    "saved": "Keep arrays in the slots, and only data with a JSON form in the arguments.",
    "shapes": "`init` reads shape and dtype of a parameter, and not its values.",
    "donated": "Return every slot as a new array of the same shape and dtype.",
    "scheduled": "Declare numbers as data (`gradtx.Hyperparam`), so that they may be schedules.",
    "paths": "Combine rules by gradtx.chain or gradtx.descend, or give the members equal names.",
    "errors": "Pass needs_params=True where the rule reads the parameter.",
}
"""The hint of each law, by its name."""


def with_hint(name: str, law: Callable[[Any], None]) -> Callable[[Any], None]:
    """The law, whose failure names the rule and gives a hint."""

    def run(tx: Any) -> None:
        try:
            law(tx)
        except AssertionError as error:
            error.add_note(f"{tx.name} breaks the law {name!r}. {HINTS[name]}")
            raise

    run.__doc__ = law.__doc__
    return run

"""Groups with labels of every kind, and masks that are no bools."""

import enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.definition.errors import SelectionError

PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}


class Group(enum.Enum):
    SLOW = 1
    FAST = 2


class Named(enum.StrEnum):
    SLOW = "slow"


LABELS = {"bools": (True, False), "ints": (0, 7), "Enums": (Group.SLOW, Group.FAST)}
LABELS |= {"texts with dots": ("lr0.1", "lr1e-3"), "Enums of texts": (Named.SLOW, "fast")}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("form", ["tree", "rules", "function"])
def test_labels_of_any_kind(labels: Any, form: str) -> None:
    """As in Optax; hyperparameters have names that `replace` takes, and the state saves."""
    one, two = labels
    tree = {"w": one, "b": two}
    forms = {"tree": tree, "rules": [("w", one), ("b", two)], "function": lambda params: tree}
    groups = {one: gradtx.adam(0.5), two: gradtx.sgd(1.0)}
    tx = gradtx.partition(groups, forms[form])
    ox = optax.multi_transform({one: optax.adam(0.5), two: optax.sgd(1.0)}, tree)
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    # Optax computes 1 − b2 in float32, which is 1e-5 off.
    expected, _ = ox.update(PARAMS, ox.init(PARAMS), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), updates, expected)
    flat = gradtx.flatten_state(state)
    assert all(isinstance(path, str) for path in flat)
    restored = gradtx.restore_state(tx.init(PARAMS), flat)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    rates = {name: 0.25 for name in gradtx.hyperparams(tx) if name.endswith("learning_rate")}
    again = gradtx.replace(tx, **rates)
    assert len(rates) == 2 and {gradtx.hyperparams(again)[name] for name in rates} == {0.25}
    assert gradtx.tunable(tx, *rates).init(PARAMS).hyperparams.keys() == rates.keys()
    assert {*gradtx.coverage(tx, PARAMS).groups.values()} == {*state.slots} | {
        name.removesuffix(".learning_rate") for name in rates
    }


def test_a_mask_of_arrays_says_where() -> None:
    masks: dict[str, Any] = {"w": jnp.array([True, False]), "b": True}
    text = r"masked\(sgd\): the answer at 'w' is an array of shape \(2,\), and a mask chooses whole"
    with pytest.raises(SelectionError, match=text):
        gradtx.masked(gradtx.sgd(0.1), masks).init(PARAMS)
    with pytest.raises(SelectionError, match="the answer at 'b' is None, which is not a bool"):
        gradtx.masked(gradtx.sgd(0.1), lambda params: None).init(PARAMS)
    scalars = {"w": jnp.array(True), "b": np.bool_(False)}
    assert gradtx.masked(gradtx.sgd(0.1), scalars).init(PARAMS)

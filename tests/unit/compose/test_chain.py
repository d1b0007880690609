"""`chain`: warnings of an order that is probably a mistake."""

import warnings

import jax
import jax.numpy as jnp
import pytest

import gradtx

PARAMS = {"w": jnp.ones(2), "b": jnp.ones(2)}
EMA, FREEZE, ADAMW = gradtx.params_ema(0.9), gradtx.freeze("w"), gradtx.adamw(0.1)
MISTAKES = {
    "an average in front": (
        (EMA, gradtx.sgd(0.1)),
        "chain: params_ema averages parameters plus the updates in front of it, not those of sgd: "
        "put params_ema last",
    ),
    "a mean in front": (
        (gradtx.clip(1.0), gradtx.params_average(), gradtx.chain(gradtx.trace(0.9), ADAMW)),
        "chain: params_average averages parameters plus the updates in front of it, not those of "
        "chain: put params_average last",
    ),
    "a freeze in front": (
        (FREEZE, ADAMW),
        "chain: freeze zeroes gradients alone, and frozen parameters still move by the decay of "
        "adamw: put freeze last",
    ),
    "a freeze as Optax writes it": (
        (gradtx.masked(gradtx.set_to_zero(), "w"), gradtx.add_decayed_weights(0.1)),
        "chain: set_to_zero zeroes gradients alone, and frozen parameters still move by the decay "
        "of add_decayed_weights: put set_to_zero last",
    ),
}
RIGHT = {
    "last": (ADAMW, EMA, FREEZE),
    "two averages": (ADAMW, EMA, gradtx.params_ema(0.99)),
    "no decay": (FREEZE, gradtx.adam(0.1)),
    "a decay of zero": (FREEZE, gradtx.adamw(0.1, weight_decay=0.0)),
    "a decay with a mask": (FREEZE, gradtx.adamw(0.1, mask="b")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_order_that_is_a_mistake_is_named_at_the_line_that_wrote_it(name: str) -> None:
    members, text = MISTAKES[name]
    with pytest.warns(UserWarning) as caught:
        gradtx.chain(*members)
    assert [str(one.message) for one in caught] == [text]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", RIGHT)
def test_any_other_order_is_no_mistake(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx = gradtx.chain(*RIGHT[name])
        updates = jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)[0]
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)


def test_the_warning_says_the_truth() -> None:
    with pytest.warns(UserWarning):
        decays, averages = (gradtx.chain(*MISTAKES[f"{one} in front"][0]) for one in NAMES)
    assert decays.update(PARAMS, decays.init(PARAMS), PARAMS)[0]["w"].any()
    _, state = averages.update(PARAMS, averages.init(PARAMS), PARAMS)
    # The average of 1 and of 1 + g = 2, where the next parameters are 1 - 0.1 g.
    assert jnp.allclose(gradtx.eval_params(averages, state, PARAMS)["w"], 0.9 * 1 + 0.1 * 2)


NAMES = ("a freeze", "an average")

"""What `metrics` shows: norms and rates beside NumPy, counters, scheduled numbers at their own
clock; each norm computed once.
"""

import json
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.definition.errors import MissingParamsError, SelectionError, StateError
from tests.methods import FIRST, METHODS

PARAMS = {
    "dense": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)},
    "out": jnp.full((2, 2), -2.0),
    "n": jnp.asarray(3),
}
GROUPS = [(r"bias$", "biases"), (r".*", "rest")]


def grads(scale: float) -> Any:
    return jax.tree.map(lambda leaf: scale * jnp.ones_like(leaf) if leaf.ndim else leaf, PARAMS)


def norm(*leaves: Any) -> float:
    return float(np.sqrt(sum(np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in leaves)))


def floats(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.ndim]


def test_norms_of_all_and_of_groups_beside_numpy() -> None:
    tx = gradtx.with_metrics(gradtx.chain(gradtx.clip_by_global_norm(2.0), gradtx.sgd(0.5)), GROUPS)
    updates, state = jax.jit(tx.update)(grads(3.0), tx.init(PARAMS), PARAMS)
    found = gradtx.metrics(tx, state)
    for name, tree in (("grad_norm", grads(3.0)), ("update_norm", updates), ("param_norm", PARAMS)):
        assert found[name].dtype == jnp.float32
        assert float(found[name]) == pytest.approx(norm(*floats(tree)), rel=1e-6)
        assert float(found[f"{name}/biases"]) == pytest.approx(
            norm(tree["dense"]["bias"]), rel=1e-6
        )
        assert float(found[f"{name}/rest"]) == pytest.approx(
            norm(tree["dense"]["kernel"], tree["out"]), rel=1e-6
        )


def test_norms_of_bfloat16_are_summed_in_float32() -> None:
    params = {"w": jnp.full(4096, 1.0, jnp.bfloat16)}
    tx = gradtx.with_metrics(gradtx.sgd(1.0))
    _, state = tx.update(params, tx.init(params), params)
    assert (
        float(gradtx.metrics(tx, state)["grad_norm"]) == 64.0
        and state.slots["metrics"]["grad_norm"].dtype == jnp.float32
    )


def test_the_clip_rate_is_an_average_that_is_corrected_for_its_start() -> None:
    tx = gradtx.with_metrics(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)), decay=0.9
    )
    state, expected, weight = tx.init(PARAMS), 0.0, 0.0
    for t, scale in enumerate((10.0, 1e-3, 1e-3, 10.0), start=1):
        _, state = tx.update(grads(scale), state, PARAMS)
        expected, weight = 0.9 * expected + 0.1 * (scale > 1), 1 - 0.9**t
        assert float(gradtx.metrics(tx, state)["clip_rate"]) == pytest.approx(
            expected / weight, rel=1e-5
        )


def test_clips_in_the_groups_of_a_partition_count_too() -> None:
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1))
    tx = gradtx.with_metrics(gradtx.partition({"biases": gradtx.sgd(0.1), "rest": clipped}, GROUPS))
    _, state = tx.update(grads(10.0), tx.init(PARAMS), PARAMS)
    assert float(gradtx.metrics(tx, state)["clip_rate"]) == pytest.approx(1.0)
    tx = gradtx.with_metrics(gradtx.chain(gradtx.zclip(max_norm=1.0), gradtx.sgd(0.1)))
    _, state = tx.update(grads(10.0), tx.init(PARAMS), PARAMS)
    assert float(gradtx.metrics(tx, state)["clip_rate"]) == pytest.approx(1.0)
    assert "clip_rate" not in gradtx.metrics(*both(gradtx.with_metrics(gradtx.sgd(0.1))))


def both(tx: Any) -> tuple[Any, Any]:
    return tx, tx.init(PARAMS)


def production(every: int = 2) -> gradtx.GradientTransformation:
    rate = gradtx.linear_schedule(1.0, 0.0, 10)
    watched = gradtx.with_metrics(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(rate)))
    return gradtx.accumulate(gradtx.guard(watched, max_norm=50.0), every)


def test_everything_that_a_nest_of_wrappers_has_to_report() -> None:
    tx = production()
    state = tx.init(PARAMS)
    for scale in (1.0, 3.0, 100.0, 100.0, 2.0):
        _, state = jax.jit(tx.update)(grads(scale), state, PARAMS)
    found = {name: round(float(value), 4) for name, value in gradtx.metrics(tx, state).items()}
    assert found["grad_norm"] == round(norm(*floats(grads(2.0))), 4), (
        "that of the mean, of the last window that was not skipped"
    )
    assert found["guarded_norm"] == pytest.approx(norm(*floats(grads(100.0))), rel=1e-6)
    assert (
        found["skipped_steps"],
        found["too_large_steps"],
        found["not_finite_steps"],
        found["spike_steps"],
    ) == (1, 1, 0, 0)
    assert found["micro_step"] == 1 and found["learning_rate"] == 0.9, (
        "the schedule has seen one update"
    )
    assert gradtx.hyperparams(tx, at=state)["learning_rate"] == pytest.approx(0.9)


def test_numbers_that_methods_keep_for_the_whole_tree_and_that_states_keep() -> None:
    tx = gradtx.tunable(gradtx.chain(gradtx.sgd(0.5), gradtx.reduce_on_plateau()), "learning_rate")
    _, state = tx.update(grads(1.0), tx.init(PARAMS), PARAMS, value=2.0)
    found = gradtx.metrics(tx, state)
    assert (
        float(found["scale"]) == 1.0
        and float(found["best_value"]) == 2.0
        and float(found["learning_rate"]) == 0.5
    )


def test_names_are_as_short_as_is_unambiguous() -> None:
    tx = gradtx.partition(
        {
            "biases": gradtx.with_metrics(gradtx.sgd(0.1)),
            "rest": gradtx.with_metrics(gradtx.sgd(0.1)),
        },
        GROUPS,
    )
    _, state = tx.update(grads(1.0), tx.init(PARAMS), PARAMS)
    found = gradtx.metrics(tx, state)
    assert float(found["biases.with_metrics.grad_norm"]) == pytest.approx(3**0.5)
    assert float(found["rest.with_metrics.grad_norm"]) == pytest.approx(10**0.5)


def test_a_skipped_step_leaves_the_metrics_inside_a_guard_alone() -> None:
    tx = gradtx.guard(
        gradtx.with_metrics(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)))
    )
    _, state = tx.update(grads(1.0), tx.init(PARAMS), PARAMS)
    before = state.slots["metrics"]
    _, state = tx.update(grads(float("nan")), state, PARAMS)
    assert state.slots["metrics"] == before and int(gradtx.metrics(tx, state)["skipped_steps"]) == 1


def test_metrics_within_jit_and_of_what_has_none() -> None:
    tx = production(1)
    assert (
        jax.jit(lambda state: gradtx.metrics(tx, state))(tx.init(PARAMS)).keys()
        == gradtx.metrics(tx, tx.init(PARAMS)).keys()
    )
    import optax

    assert gradtx.metrics(optax.adam(0.1), optax.adam(0.1).init(PARAMS)) == {}
    assert gradtx.metrics(gradtx.identity(), gradtx.identity().init(PARAMS)) == {}


WITH_RATE = [
    name
    for name in FIRST
    if any(one.endswith("learning_rate") for one in gradtx.hyperparams(METHODS[name].tx))
]


@pytest.mark.parametrize("name", WITH_RATE)
def test_the_learning_rate_of_every_method_is_a_metric(name: str) -> None:
    tx = METHODS[name].tx
    state = tx.init([jnp.ones(3), jnp.ones((3, 3))])
    logs = gradtx.metrics(tx, state)
    known = gradtx.hyperparams(tx, at=state)
    rates = [value for one, value in known.items() if one.endswith("learning_rate")]
    found = [value for one, value in logs.items() if one.endswith("learning_rate")]
    assert [float(one) for one in found] == pytest.approx([float(one) for one in rates])
    assert all(isinstance(one, jax.Array) for one in logs.values())


def test_constant_rates_of_groups_have_the_names_of_hyperparams() -> None:
    tx = gradtx.partition({"biases": gradtx.sgd(0.1), "rest": gradtx.adam(0.2)}, GROUPS)
    logs = gradtx.metrics(tx, tx.init(PARAMS))
    assert {name: round(float(value), 3) for name, value in logs.items()} == {
        "biases.learning_rate": 0.1,
        "rest.learning_rate": 0.2,
    }


def test_metrics_are_a_dict_and_a_tree() -> None:
    tx = gradtx.with_metrics(gradtx.sgd(0.1))
    state = tx.init(PARAMS)
    logs, jitted = gradtx.metrics(tx, state), jax.jit(lambda one: gradtx.metrics(tx, one))(state)
    assert isinstance(logs, dict) and type(jitted) is type(logs) and {**logs} == logs
    assert jax.tree.structure(logs) == jax.tree.structure(jitted)
    doubled = jax.tree.map(lambda one, other: float(one + other), logs, jitted)
    assert doubled == {**dict.fromkeys(("grad_norm", "param_norm", "update_norm"), 0.0)} | {
        "learning_rate": pytest.approx(0.2)
    }
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(logs)]
    assert paths == sorted(f"[{name!r}]" for name in logs)
    assert json.loads(json.dumps(doubled)) == doubled
    assert pickle.loads(pickle.dumps(doubled)) == doubled
    carried, _ = jax.lax.scan(
        lambda one, _: (gradtx.metrics(tx, state), None), logs, None, length=2
    )
    assert float(carried["learning_rate"]) == pytest.approx(0.1)


def test_a_missing_metric_names_its_wrapper() -> None:
    tx = gradtx.adamw(0.1)
    logs = gradtx.metrics(tx, tx.init(PARAMS))
    text = (
        "metrics: 'grad_norm' is not in this state: wrap the optimizer in "
        "gradtx.with_metrics(...), which stores norms and the clip rate; it has 'learning_rate'"
    )
    with pytest.raises(KeyError) as caught:
        logs["grad_norm"]
    assert str(caught.value) == text
    with pytest.raises(KeyError, match=r"'grad_norm/biases' is not in this state: wrap"):
        jax.jit(lambda state: gradtx.metrics(tx, state)["grad_norm/biases"])(tx.init(PARAMS))
    with pytest.raises(KeyError, match=r"there is no 'lr'; did you mean 'learning_rate'\? It has"):
        jax.tree.map(lambda one: one, logs)["lr"]
    assert logs.get("grad_norm") is None and "grad_norm" not in logs
    groups = {"biases": gradtx.sgd(0.1), "rest": gradtx.sgd(0.1)}
    both = gradtx.partition(groups, GROUPS)
    with pytest.raises(KeyError, match=r"several members report 'learning_rate': read 'biases\.le"):
        gradtx.metrics(both, both.init(PARAMS))["learning_rate"]


def reduces(tx: gradtx.GradientTransformation) -> int:
    """The sums over whole arrays in the compiled step."""
    params = {"a": jnp.ones((64, 32)), "b": jnp.ones((32, 64))}
    step = jax.jit(lambda params, state, grads: tx.update(grads, state, params))
    text = step.lower(params, tx.init(params), params).compile().as_text() or ""
    return len(re.findall(r"= f32\[\]\S* reduce\(%?\S*, ", text))


def test_each_norm_is_computed_once() -> None:
    """In the HLO: the norm of the gradients, for a guard, the metrics and a clip, is one sum for
    each of two arrays.
    """
    chain = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1))
    assert reduces(chain) == 2
    assert reduces(gradtx.guard(chain)) == 2
    assert reduces(gradtx.with_metrics(chain)) == 6, "gradients, updates, parameters"
    assert reduces(gradtx.guard(gradtx.with_metrics(chain))) == 6
    assert reduces(gradtx.dynamic_loss_scale(gradtx.guard(gradtx.with_metrics(chain)))) == 6


def test_without_the_update_norm_a_step_needs_no_memory() -> None:
    """Its temporaries on the CPU: less than a hundredth of the parameters."""
    params = {name: jnp.ones((256, 256)) for name in "abcd"}
    tx = gradtx.with_metrics(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(0.1)), update_norm=False
    )
    assert "update_norm" not in gradtx.metrics(tx, tx.init(params))

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params).compile()
    memory = compiled.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < 0.01 * 4 * 256 * 256 * 4


def test_what_is_wrong_is_told() -> None:
    with pytest.raises(
        SelectionError,
        match=r"with_metrics: groups = 'bias' must be rules \[\(pattern, group\), ...\]",
    ):
        gradtx.with_metrics(gradtx.sgd(0.1), groups="bias")  # pyright: ignore[reportArgumentType]
    tx = gradtx.with_metrics(gradtx.sgd(0.1), [(r"biases$", "biases"), (r".*", "rest")])
    with pytest.raises(
        SelectionError,
        match=r"with_metrics: rule 1, \('biases\$', 'biases'\), matches none of the 4 leaves",
    ):
        tx.update(grads(1.0), tx.init(PARAMS), PARAMS)
    with pytest.raises(MissingParamsError, match="with_metrics needs the parameters"):
        gradtx.with_metrics(gradtx.sgd(0.1)).update(
            grads(1.0), gradtx.with_metrics(gradtx.sgd(0.1)).init(PARAMS)
        )


def test_a_state_of_another_definition() -> None:
    guarded, watched = gradtx.guard(gradtx.sgd(0.1)), gradtx.with_metrics(gradtx.sgd(0.1))
    for tx, state, message in (
        (
            guarded,
            PARAMS,
            r"^the state of sgd is a dict, not a gradtx.State: pass the state that tx.update "
            r"returned$",
        ),
        (
            guarded,
            watched.init(PARAMS),
            r"^the state has nothing for guard; it holds 'metrics': it is another definition's$",
        ),
        (
            watched,
            guarded.init(PARAMS),
            r"^the state has nothing for metrics; it holds 'guard': it is another definition's$",
        ),
        (
            gradtx.sgd(0.1),
            guarded.init(PARAMS),
            r"^the state holds slots for 'guard', which is not a member of this definition; "
            r".* are none: make it with tx\.init\(params\)$",
        ),
    ):
        with pytest.raises(StateError, match=message):
            gradtx.metrics(tx, state)

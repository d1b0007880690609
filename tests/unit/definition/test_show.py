"""Printing: a definition on one line where it fits, else on lines of at most 100 columns."""

import jax.numpy as jnp
import pytest

import gradtx
from gradtx.definition.show import WIDTH, show
from tests.methods import METHODS

RATE = gradtx.warmup_cosine_decay_schedule(
    init_value=0.0, peak_value=0.3, warmup_steps=20, decay_steps=300
)
NAMES = {name: getattr(gradtx, name) for name in dir(gradtx)}


def test_a_short_one_stays_on_one_line() -> None:
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3, weight_decay=0.1))
    assert "\n" not in repr(tx) and repr(tx) == str(tx) == show(tx)


def test_a_long_one_is_indented_member_by_member() -> None:
    tx = gradtx.chain(
        gradtx.clip_by_global_norm(1.0), gradtx.adamw(RATE, mask=r"kernel$"), rate=gradtx.scale(0.5)
    )
    assert (
        repr(tx)
        == """\
chain(
    clip_by_global_norm(max_norm=1.0),
    adamw(
        learning_rate=warmup_cosine_decay_schedule(
            init_value=0.0, peak_value=0.3, warmup_steps=20, decay_steps=300
        ),
        mask='kernel$',
    ),
    rate=scale(step_size=0.5),
)"""
    )
    assert eval(repr(tx), NAMES) == tx


def test_the_limit_is_that_of_a_line() -> None:
    for length in (80, 81, 82, 83, 84, 85, 86, 87, 88):
        text = repr(gradtx.freeze("x" * length))
        assert ("\n" in text) == (len(f"freeze(mask='{'x' * length}')") > WIDTH)


def test_the_comma_behind_an_item_counts() -> None:
    lengths = range(60, 100)
    for length in lengths:
        tx = gradtx.chain(gradtx.freeze("x" * length), gradtx.clip(1.0), gradtx.clip(2.0))
        assert max(map(len, repr(tx).splitlines())) <= WIDTH and eval(repr(tx), NAMES) == tx


LONG = {
    "a pattern": gradtx.freeze("|".join(f"layer_{n}/kernel" for n in range(40))),
    "a pattern with quotes and breaks": gradtx.freeze("'\"\n\\d" * 40),
    "rules": gradtx.partition(
        {f"group {n}": gradtx.sgd(0.1, momentum=0.9) for n in range(9)},
        [(f"^blocks/{n}/attention/(query|key|value|out)/kernel$", f"group {n}") for n in range(9)],
    ),
    "a tuple of one": gradtx.partition({"all": gradtx.adam(RATE)}, (("." * 120, "all"),)),
    "deep": gradtx.accumulate(
        gradtx.guard(gradtx.with_metrics(gradtx.chain(gradtx.adamw(RATE), gradtx.clip(1.0)))),
        4,
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_no_line_is_too_long_and_the_text_is_the_definition(name: str) -> None:
    text = repr(LONG[name])
    assert "\n" in text and max(map(len, text.splitlines())) <= WIDTH
    assert eval(text, NAMES) == LONG[name]


def test_the_lines_of_every_method() -> None:
    long = [
        (name, line)
        for name, method in METHODS.items()
        for line in repr(method.tx).splitlines()
        if len(line) > WIDTH
    ]
    assert not long


def test_a_message_shows_a_definition_on_one_line() -> None:
    long = gradtx.chain(gradtx.adamw(RATE, b1=0.8, b2=0.95), gradtx.clip(1.0), gradtx.clip(2.0))
    assert "\n" in repr(long) and "\n" not in show(long)
    assert show({"a": [long]}).startswith("{'a': [chain(adamw(")
    assert eval(show(long), NAMES) == long


def test_rules_show_the_fields_that_are_set() -> None:
    def double(grad, slots, param, step):
        return 2 * grad, slots

    assert repr(gradtx.leafwise(None, double)) == (
        "leafwise(rule=LeafRule(name='double', update_array=double), hyperparams={})"
    )


def test_arrays_show_their_shapes() -> None:
    assert show((jnp.ones((2, 3)), [jnp.float32(0.5)])) == "(f32[2,3], [0.5])"

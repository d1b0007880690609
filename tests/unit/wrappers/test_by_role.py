"""by_role: groups of single roles beside hidden matrices and the rest."""

import re

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.tree.names import GROUPS
from tests.support.bits import assert_same

W = jnp.ones((8, 4))
PARAMS = {
    "embed": W,
    "position_embedding": W,
    "moe": {"router": {"kernel": W}, "experts": {"up": jnp.ones((2, 4, 4))}},
    "ssm": {"A_log": jnp.ones(4)},
    "layer": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)},
    "lm_head": {"kernel": jnp.ones((4, 8))},
}
PLACES = {
    "embed": "embedding",
    "position_embedding": "position",
    "moe/router/kernel": "router",
    "moe/experts/up": "muon",
    "ssm/A_log": "dynamics",
    "layer/kernel": "muon",
    "layer/bias": "norm",
    "lm_head/kernel": "head",
}
PAIR = {"muon": gradtx.sgd(1.0), "adam": gradtx.sgd(2.0)}


def groups_of(tx: gradtx.GradientTransformation) -> dict[str, str]:
    return {path: said.split(":")[0] for path, said in gradtx.coverage(tx, PARAMS).items()}


def test_each_role_may_have_a_group() -> None:
    tx = gradtx.by_role(PAIR | {name: gradtx.sgd(4.0) for name in GROUPS})
    assert groups_of(tx) == PLACES
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = "/".join(key.key for key in path)
        assert_same(update, jnp.full_like(update, -1.0 if PLACES[name] == "muon" else -4.0))


def test_a_group_takes_its_role_alone() -> None:
    tx = gradtx.by_role({**PAIR, "head": gradtx.sgd(4.0)})
    kept = {path: one if one in ("muon", "head") else "adam" for path, one in PLACES.items()}
    assert groups_of(tx) == kept


def test_a_route_may_lead_to_a_further_group() -> None:
    tx = gradtx.by_role({**PAIR, "head": gradtx.sgd(4.0)}, routes=[("^layer/", "head")])
    groups = groups_of(tx)
    assert groups["layer/kernel"] == groups["layer/bias"] == "head"


def test_mistakes() -> None:
    said = (
        "by_role: the further group 'heads' is no role; the roles are 'embedding', 'position', "
        "'head', 'router', 'norm', 'dynamics'"
    )
    with pytest.raises(gradtx.GradtxError, match=f"^{re.escape(said)}$"):
        gradtx.by_role({**PAIR, "heads": gradtx.sgd(1.0)})
    with pytest.raises(gradtx.GradtxError, match=r"^by_role: give two groups"):
        gradtx.by_role({"muon": gradtx.sgd(1.0)})
    tx = gradtx.by_role({**PAIR, "head": gradtx.sgd(4.0)}, routes=[("^layer/", "heads")])
    said = "names no group; the groups are 'muon', 'adam' and 'head'"
    with pytest.raises(gradtx.SelectionError, match=re.escape(said)):
        tx.init(PARAMS)

"""Wrappers around one transformation, by name: laws of definitions that hold others."""

import functools
from collections.abc import Callable

import gradtx
from tests.support.meshes import CODECS

TX = gradtx.GradientTransformation
Wrappers = dict[str, Callable[[TX], TX]]

WRAPPERS: Wrappers = {
    "accumulate": lambda tx: gradtx.accumulate(tx, 2),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 3),
    "cautious": lambda tx: gradtx.chain(tx, gradtx.cautious_mask()),
    "dynamic_loss_scale": gradtx.dynamic_loss_scale,
    "flatten": gradtx.flatten,
    "guard": lambda tx: gradtx.guard(tx, max_norm=5.0, zscore=3.0),
    "lookahead": lambda tx: gradtx.lookahead(tx, 2, 0.5),
    "master_weights": gradtx.master_weights,
    "params_average": lambda tx: gradtx.chain(tx, gradtx.params_average()),
    "params_ema": lambda tx: gradtx.chain(tx, gradtx.params_ema(0.9)),
    "with_metrics": gradtx.with_metrics,
    "zclip": lambda tx: gradtx.chain(gradtx.zclip(), tx),
    **{
        f"stored {codec}": functools.partial(gradtx.stored, default=codec, min_size=0, block=2)
        for codec in CODECS
    },
}
ON_A_MESH: Wrappers = {
    "anchor_gradient": lambda tx: gradtx.anchor_gradient(tx, 4, 1, 0.5),
    "before a scale": lambda tx: gradtx.chain(tx, gradtx.scale(0.5)),
    "behind a clip": lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
    "behind a decay": lambda tx: gradtx.chain(gradtx.add_decayed_weights(0.1), tx),
    "ema_nesterov": gradtx.ema_nesterov,
    "freeze": lambda tx: gradtx.selective_transform(tx, freeze_mask="^b$"),
    "gpa": gradtx.gpa,
    "multiply_by_path": lambda tx: gradtx.chain(tx, gradtx.multiply_by_path({"w": 0.5})),
    "outer": lambda tx: gradtx.outer(tx, gradtx.sgd(0.7), every=2),
    "partition": lambda tx: gradtx.partition(
        {"one": tx, "other": gradtx.sgd(0.1)}, [("[wv]", "one"), (".*", "other")]
    ),
    "sam": lambda tx: gradtx.sam(tx, gradtx.sgd(0.1), sync_period=2),
    "schedule_free": lambda tx: gradtx.schedule_free(tx, 0.1),
    "sharded": lambda tx: gradtx.sharded(tx, "data"),
    "stacked": lambda tx: gradtx.stacked(tx, "w"),
}
"""Within a mesh that has the axis "data", on a tree with matrices `w` and a vector `b`."""

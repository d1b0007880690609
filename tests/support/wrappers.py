"""Wrappers around one transformation, by name: laws of definitions that hold others."""

import functools
from collections.abc import Callable

import gradtx
from tests.support.meshes import CODECS

TX = gradtx.GradientTransformation

WRAPPERS: dict[str, Callable[[TX], TX]] = {
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

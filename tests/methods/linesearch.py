"""L-BFGS, and line searches along given directions: on functions that have the given gradients
where they start.
"""

import functools
from typing import Any

import jax

import gradtx
from tests.methods.row import Method
from tests.oracles import linesearch as ref
from tests.support.peer import optax


def bump(center: Any, grads: Any, curvature: Any, params: Any) -> Any:
    """2 + ⟨g, x⟩ + c ‖x‖² / 2 + Σ x⁴ at a distance x, for NumPy and JAX, and for complex x an
    analytic function.
    """
    gaps = [w - c for w, c in zip(params, center, strict=True)]
    return 2.0 + sum(
        (g * x + curvature / 2 * x**2 + x**4).sum() for g, x in zip(grads, gaps, strict=True)
    )


def around(step: int, params: Any, grads: Any) -> dict[str, Any]:
    """Flat at some steps, where a search must go further than 1, and steep at others."""
    value_fn = jax.tree_util.Partial(bump, params, grads, (0.1, 1.0, 6.0, 40.0)[step % 4])
    return {"value": 2.0, "grad": grads, "value_fn": value_fn}


def zoomed(lib: Any) -> Any:
    search = lib.scale_by_zoom_linesearch(
        12, 4.0, increase_factor=1.7, slope_rtol=0.01, curv_rtol=0.3, approx_dec_rtol=None
    )
    return lib.chain(lib.scale(-0.5), search)


def backtracked(lib: Any) -> Any:
    search = lib.scale_by_backtracking_linesearch(
        30,
        slope_rtol=0.3,
        decrease_factor=0.7,
        increase_factor=3.0,
        max_learning_rate=2.0,
        rtol=1e-3,
        store_grad=True,
    )
    return lib.chain(lib.scale(-1.0), search)


METHODS: dict[str, Method] = {
    # Of random gradients, ⟨s, y⟩ may nearly cancel, and what is lost there goes into all later
    # parameters and pairs: the deviation
    # grows a thousandfold over 20 steps, to 8e-11, or in float32 from 5e-8 to 1e-2; Optax's is the
    # same to the last digit.
    "scale_by_lbfgs": Method(
        gradtx.scale_by_lbfgs(4),
        functools.partial(ref.lbfgs_direction, m=4),
        optax.scale_by_lbfgs(4),
        float64=1e-9,
        float32=0.05,
    ),
    "scale_by_lbfgs/unscaled": Method(
        gradtx.scale_by_lbfgs(3, scale_init_precond=False),
        functools.partial(ref.lbfgs_direction, m=3, scaled=False),
        optax.scale_by_lbfgs(3, scale_init_precond=False),
        float32=1e-3,  # 1e-4, for the same reason
    ),
    "scale_by_zoom_linesearch": Method(
        zoomed(gradtx),
        ref.searched(
            ref.given,
            -0.5,
            functools.partial(ref.zoom, steps=12, c1=0.01, c2=0.3, eps=-1.0, grow=1.7, most=4.0),
        ),
        zoomed(optax),
        extra=around,
    ),
    "scale_by_backtracking_linesearch": Method(
        backtracked(gradtx),
        ref.searched(
            ref.given,
            -1.0,
            functools.partial(
                ref.backtracking, steps=30, c1=0.3, shrink=0.7, grow=3.0, most=2.0, rtol=1e-3
            ),
        ),
        backtracked(optax),
        extra=around,
    ),
    "lbfgs": Method(
        gradtx.lbfgs(0.8, memory_size=2),
        ref.searched(
            functools.partial(ref.lbfgs_direction, m=2),
            -0.8,
            functools.partial(ref.zoom, steps=20, keep=False),
        ),
        optax.lbfgs(0.8, memory_size=2),
        extra=around,
        float64=1e-9,  # as for scale_by_lbfgs; in float32 1e-3
        float32=1e-2,
    ),
}

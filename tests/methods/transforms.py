"""ADOPT's and AdEMAMix's families, MARS, noise, and the small transformations and wrappers."""

import functools

import gradtx
from gradtx.transforms.project import project
from tests.methods.row import Method, everywhere, flat, projected, rate, uphill
from tests.oracles import core, sets
from tests.oracles import transforms as ref
from tests.oracles.compose import after, decay_weights, descend, each, scale
from tests.support.peer import optax

beta3 = gradtx.half_life_schedule(0.8, 0.99, 10)
groups = [(r".*", "all")]

WRITES_FIRST = (
    "the first of two kernels, for the norm, writes the gradient that is kept, and the "
    "second still needs the one before"
)

METHODS: dict[str, Method] = {
    # optimizers
    "scale_by_acprop": Method(
        gradtx.scale_by_acprop(0.8, 0.9, 1e-3, 1e-4),
        each(ref.acprop, b1=0.8, b2=0.9, eps=1e-3, eps_root=1e-4),
        optax.contrib.scale_by_acprop(0.8, 0.9, 1e-3, 1e-4),
    ),
    "acprop": Method(
        gradtx.acprop(rate, weight_decay=0.1),
        descend(each(ref.acprop), rate, 0.1),
        optax.contrib.acprop(rate, weight_decay=0.1),
    ),
    "scale_by_adopt": Method(
        gradtx.scale_by_adopt(), each(ref.adopt), optax.contrib.scale_by_adopt()
    ),
    "scale_by_adopt/free": Method(
        gradtx.scale_by_adopt(0.8, 0.9, 1e-2, nesterov=True, use_clipping=False),
        each(ref.adopt, b1=0.8, b2=0.9, eps=1e-2, nesterov=True, bound=lambda count: float("inf")),
        optax.contrib.scale_by_adopt(0.8, 0.9, 1e-2, nesterov=True, use_clipping=False),
    ),
    "adopt": Method(
        gradtx.adopt(rate, b1=0.8, b2=0.9, clip_value_fn=0.5),
        descend(each(ref.adopt, b1=0.8, b2=0.9, bound=lambda count: 0.5), rate),
        optax.contrib.adopt(rate, b1=0.8, b2=0.9, clip_value_fn=lambda count: 0.5),
    ),
    "scale_by_ademamix": Method(
        gradtx.scale_by_ademamix(0.8, 0.9, beta3, gradtx.linear_schedule(0.0, 6.0, 10), 1e-3, 1e-4),
        each(
            ref.ademamix,
            b1=0.8,
            b2=0.9,
            b3=lambda c: 0.5 ** (1 / ref.half_life(c, 0.8, 0.99, 10)),
            alpha=lambda c: 6 * min(1, c / 10),
            eps=1e-3,
            eps_root=1e-4,
        ),
        optax.contrib.scale_by_ademamix(
            0.8, 0.9, beta3, gradtx.linear_schedule(0.0, 6.0, 10), 1e-3, 1e-4
        ),
    ),
    "ademamix": Method(
        gradtx.ademamix(rate, 0.6, 0.99, weight_decay=0.1),
        descend(each(ref.ademamix, b1=0.6, b2=0.99), rate, 0.1),
        optax.contrib.ademamix(rate, 0.6, 0.99, weight_decay=0.1),
    ),
    "scale_by_simplified_ademamix": Method(
        gradtx.scale_by_simplified_ademamix(0.8, 0.9, 3.0, 1e-3, 1e-4),
        each(ref.simplified_ademamix, b1=0.8, b2=0.9, alpha=3.0, eps=1e-3, eps_root=1e-4),
        optax.contrib.scale_by_simplified_ademamix(0.8, 0.9, 3.0, 1e-3, 1e-4),
    ),
    "simplified_ademamix": Method(
        gradtx.simplified_ademamix(rate, weight_decay=0.1),
        descend(each(ref.simplified_ademamix), rate, 0.1),
        optax.contrib.simplified_ademamix(rate, weight_decay=0.1),
    ),
    "mars_correction": Method(
        gradtx.mars_correction(0.7, 0.1, 2.0),
        each(ref.mars_correction, b1=0.7, gamma=0.1, k=2.0),
        copies=WRITES_FIRST,
    ),
    "mars_correction/from_zero": Method(
        gradtx.mars_correction(from_zero=True),
        each(ref.mars_correction, before=0.0),
    ),
    "scale_by_mars": Method(
        gradtx.scale_by_mars(0.9, 0.95, 0.1, 1e-3, 2.0, vector_b1=0.8, vector_b2=0.9),
        each(ref.mars, b1=0.9, b2=0.95, gamma=0.1, eps=1e-3, k=2.0, vector_b1=0.8, vector_b2=0.9),
        copies=WRITES_FIRST,
    ),
    "zclip": Method(gradtx.zclip(), ref.zclip),
    "zclip/soon": Method(
        gradtx.zclip(0.8, 0.7, 4, 4.4, 0.2),
        functools.partial(ref.zclip, threshold=0.8, decay=0.7, warmup=4, k=4.4, eps=0.2),
    ),
    "mars": Method(
        gradtx.mars(rate, weight_decay=0.05),
        descend(each(ref.mars), rate, 0.05),
        copies=WRITES_FIRST,
    ),
    # noise; a variance of 0 leaves what is certain, tests/unit/transforms/test_transforms.py
    # looks at the rest
    "add_noise": Method(
        gradtx.add_noise(0.0, 0.55, key=3), each(core.identity), optax.add_noise(0.0, 0.55, key=3)
    ),
    "noisy_sgd": Method(
        gradtx.noisy_sgd(rate, eta=0.0, seed=3),
        descend(each(core.identity), rate),
        optax.noisy_sgd(rate, eta=0.0, key=3),
    ),
    # constraints, bundles, functions
    "zero_nans": Method(
        gradtx.zero_nans(),
        each(core.identity),
        optax.zero_nans(),
        breaks=("contained",),  # a nan becomes 0
    ),
    "keep_params_nonnegative": Method(
        gradtx.chain(gradtx.scale(-0.5), gradtx.keep_params_nonnegative()),
        after(each(scale, factor=-0.5), each(ref.nonnegative)),
        optax.chain(optax.scale(-0.5), optax.keep_params_nonnegative()),
    ),
    "project": Method(
        gradtx.chain(gradtx.scale(-0.5), project("l2_ball", scale=2.0)),
        after(each(scale, factor=-0.5), sets.project_to(sets.l2_ball, scale=2.0)),
        optax.chain(optax.scale(-0.5), projected(optax.projections.projection_l2_ball, 2.0)),
    ),
    "project/simplex": Method(
        gradtx.chain(gradtx.scale(-0.5), project("simplex", everywhere, scale=3.0)),
        after(each(scale, factor=-0.5), sets.project_to(sets.simplex, scale=3.0)),
        optax.chain(optax.scale(-0.5), projected(optax.projections.projection_simplex, 3.0)),
    ),
    "project/box": Method(
        gradtx.chain(gradtx.scale(-0.5), project("box", lower=-0.3, upper=0.4)),
        after(each(scale, factor=-0.5), sets.project_to(sets.box, lower=-0.3, upper=0.4)),
    ),
    "apply_every": Method(gradtx.apply_every(3), each(ref.every, k=3), optax.apply_every(3)),
    "stateless_with_tree_map": Method(
        gradtx.stateless_with_tree_map(uphill),
        each(ref.times_param),
        optax.stateless_with_tree_map(uphill),
    ),
    # measures
    "snapshot": Method(
        gradtx.snapshot("norm", gradtx.global_norm),
        each(core.identity),
        optax.snapshot("norm", optax.tree.norm),
    ),
    "measure_with_ema": Method(
        gradtx.measure_with_ema(gradtx.global_norm, 0.9), each(core.identity)
    ),
    "monitor": Method(
        gradtx.monitor(
            {"norm": gradtx.global_norm, "smooth": gradtx.measure_with_ema(gradtx.global_norm, 0.9)}
        ),
        each(core.identity),
        optax.monitor(
            {"norm": optax.tree.norm, "smooth": optax.measure_with_ema(optax.tree.norm, 0.9)}
        ),
    ),
    # wrappers
    "multi_transform": Method(
        gradtx.multi_transform({"all": gradtx.adam(0.1)}, groups), descend(each(core.adam), 0.1)
    ),
    "selective_transform": Method(
        gradtx.selective_transform(gradtx.sgd(0.1, momentum=0.9), freeze_mask=flat),
        descend(each(ref.unless(lambda g: g.ndim == 1, lambda *a: core.trace(*a, decay=0.9))), 0.1),
    ),
    "flatten": Method(
        gradtx.flatten(
            gradtx.chain(gradtx.clip_by_block_rms(0.9), gradtx.adamw(0.1, weight_decay=0.1))
        ),
        ref.as_one_vector(
            after(each(core.clip_by_block_rms, c=0.9), descend(each(core.adam), 0.1, 0.1))
        ),
        optax.flatten(
            optax.chain(optax.clip_by_block_rms(0.9), optax.adamw(0.1, weight_decay=0.1))
        ),
        copies="arrays go into one vector and out of it",
    ),
    "split_real_and_imaginary": Method(
        gradtx.split_real_and_imaginary(gradtx.adamw(0.1, weight_decay=0.1)),
        after(each(core.adam), each(decay_weights, weight_decay=0.1), each(scale, factor=-0.1)),
        optax.contrib.split_real_and_imaginary(optax.adamw(0.1, weight_decay=0.1)),
    ),
}

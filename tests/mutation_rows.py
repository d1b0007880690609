"""The places that tests/mutations.py breaks, one at a time, and the tests that are to notice."""

from typing import NamedTuple


class Mutation(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: str


ORACLES = "tests/test_oracles.py tests/test_parity.py -k {}"

MUTATIONS = [
    Mutation(
        "adam: b1 and b2 swapped",
        "optimizers/adam.py",
        "average(slots.mu, grad, b1)",
        "average(slots.mu, grad, b2)",
        ORACLES.format("adam"),
    ),
    Mutation("adam: no bias correction of nu", "optimizers/adam.py", "debias(nu, b2, step)", "nu", ORACLES.format("adam")),
    Mutation(
        "adam: bias correction one step late", "transforms/moments.py", "jnp.expm1(step *", "jnp.expm1((step + 1) *", ORACLES.format("adam")
    ),
    Mutation("adam: eps inside the root", "optimizers/adam.py", "+ eps_root) + eps)", "+ eps_root + eps))", ORACLES.format("adam")),
    Mutation(
        "adam: Nesterov's look-ahead at t",
        "transforms/moments.py",
        "debias(mu, b1, step + 1)",
        "debias(mu, b1, step)",
        ORACLES.format("adam"),
    ),
    Mutation(
        "adamw: decay before the preconditioner",
        "core/descend.py",
        'if form == "l2" else',
        "if True else",
        ORACLES.format("adamw"),
    ),
    Mutation("descend: upwards", "core/descend.py", "(-learning_rate if flip_sign", "(learning_rate if flip_sign", ORACLES.format("sgd")),
    Mutation(
        "lion: momentum before the sign",
        "optimizers/lion.py",
        "blend = average(slots.mu, grad, b1)",
        "blend = average(average(slots.mu, grad, b2), grad, b1)",
        ORACLES.format("lion"),
    ),
    Mutation(
        "rmsprop: eps always inside the root",
        "transforms/moments.py",
        "else jnp.sqrt(square) + eps",
        "else jnp.sqrt(square + eps)",
        ORACLES.format("rmsprop"),
    ),
    Mutation(
        "centered rmsprop: mean not squared",
        "optimizers/rmsprop.py",
        "square - abs_sq(mean)",
        "square - jnp.abs(mean)",
        ORACLES.format("rmsprop"),
    ),
    Mutation(
        "adagrad: forgets",
        "optimizers/adagrad.py",
        "slots.sum_of_squares + abs_sq(grad)",
        "0.99 * slots.sum_of_squares + abs_sq(grad)",
        ORACLES.format("adagrad"),
    ),
    Mutation(
        "momentum: an average, not a sum",
        "transforms/momentum.py",
        "trace = grad + decay * slots.trace",
        "trace = (1 - decay) * grad + decay * slots.trace",
        ORACLES.format("sgd"),
    ),
    Mutation(
        "clip: nan spreads",
        "transforms/clipping.py",
        "limit / jnp.where(within, 1.0, size), 0.0)",
        "limit / jnp.where(within, 1.0, size), size)",
        "tests/test_laws.py -k clip_by_global_norm",
    ),
    Mutation(
        "clock: schedules one update late",
        "core/program.py",
        "return Clock(count, jnp.where(",
        "return Clock(count + 1, jnp.where(",
        ORACLES.format("schedule"),
    ),
    Mutation(
        "lifter: computes in the gradient's dtype",
        "tree/casts.py",
        "np.dtype(jnp.promote_types(dtype, jnp.float32))",
        "np.dtype(dtype)",
        "tests/test_lifter.py -k precision",
    ),
    Mutation(
        "clock: wraps", "core/program.py", "jnp.where(count < limit, count + 1, limit)", "count + 1", "tests/test_lifter.py -k saturates"
    ),
    Mutation(
        "kernels: bundles in another order",
        "tree/kernels.py",
        "return bundled + [",
        "return bundled[::-1] + [",
        "tests/test_lifter.py -k bundled",
    ),
    Mutation(
        "partition: the last match wins",
        "core/selector.py",
        "enumerate(matches) if hits[index]), None)",
        "reversed(list(enumerate(matches))) if hits[index]), None)",
        "tests/test_select.py",
    ),
    Mutation(
        "apply_updates: rounds the sum twice",
        "core/apply.py",
        "dtype = compute_dtype(param.dtype)",
        "dtype = param.dtype",
        "tests/test_lifter.py -k apply_updates",
    ),
    # sign, norm and factored methods
    Mutation(
        "adafactor: offset not counted",
        "optimizers/adafactor.py",
        "jnp.maximum(step - 1 - step_offset, 0)",
        "jnp.maximum(step - 1, 0)",
        ORACLES.format("factored"),
    ),
    Mutation(
        "factored: rows not divided by their mean",
        "transforms/factoring.py",
        "rows / jnp.where(mean > 0, mean, 1.0)",
        "rows",
        ORACLES.format("came"),
    ),
    Mutation(
        "came: distance from the last average",
        "optimizers/came.py",
        "abs_sq(direction - mu)",
        "abs_sq(direction - slots.mu)",
        ORACLES.format("came"),
    ),
    Mutation(
        "adadelta: gradients in place of steps",
        "optimizers/adadelta.py",
        "average(slots.e_x, abs_sq(delta), rho)",
        "average(slots.e_x, abs_sq(grad), rho)",
        ORACLES.format("adadelta"),
    ),
    Mutation(
        "sm3: largest in place of least",
        "optimizers/sm3.py",
        "functools.reduce(jnp.minimum",
        "functools.reduce(jnp.maximum",
        ORACLES.format("sm3"),
    ),
    Mutation(
        "rprop: gradient kept where it turns",
        "optimizers/rprop.py",
        "signs = jnp.where(agreement < 0, 0.0, signs)",
        "signs = signs",
        ORACLES.format("rprop"),
    ),
    Mutation(
        "trust ratio: floor on one norm", "transforms/trust.py", "jnp.maximum(norm(grad), min_norm)", "norm(grad)", ORACLES.format("trust")
    ),
    Mutation(
        "fromage: no shrinkage",
        "optimizers/fromage.py",
        "(learning_rate * grad + shrinkage * param)",
        "(learning_rate * grad + 0 * shrinkage * param)",
        ORACLES.format("fromage"),
    ),
    Mutation(
        "madgrad: start follows the parameters",
        "optimizers/madgrad.py",
        "DualAverages(s, squares, slots.x0)",
        "DualAverages(s, squares, param)",
        ORACLES.format("madgrad"),
    ),
    Mutation(
        "centralize: first axis too",
        "transforms/centering.py",
        "tuple(range(1, grad.ndim))",
        "tuple(range(grad.ndim))",
        ORACLES.format("centralize"),
    ),
    Mutation(
        "per layer: shares of sizes, not of their roots",
        "transforms/per_example.py",
        "math.sqrt(size / sum(sizes))",
        "size / sum(sizes)",
        "tests/test_norms.py -k per_example",
    ),
    # relatives of Adam, noise, layouts
    Mutation(
        "acprop: divisor of this step",
        "optimizers/acprop.py",
        "jnp.sqrt(debias(slots.nu, b2, before))",
        "jnp.sqrt(debias(average(slots.nu, abs_sq(grad - slots.mu), b2), b2, before))",
        ORACLES.format("acprop"),
    ),
    Mutation(
        "adopt: divisor knows this gradient",
        "optimizers/adopt.py",
        "jnp.where(first, 1.0, slots.nu)",
        "jnp.where(first, 1.0, average(slots.nu, square, b2))",
        ORACLES.format("adopt"),
    ),
    Mutation(
        "ademamix: long average corrected",
        "optimizers/ademamix.py",
        "alpha * m2)",
        "alpha * debias(m2, b3, step))",
        ORACLES.format("ademamix"),
    ),
    Mutation("mars: keeps the corrected gradient", "optimizers/mars.py", "Previous(grad)", "Previous(corrected)", ORACLES.format("mars")),
    Mutation(
        "noise: fades by count, not by step",
        "transforms/noise.py",
        "eta * step**-gamma",
        "eta * (step + 1) ** -gamma",
        "tests/test_noise.py",
    ),
    Mutation(
        "noise: one key for all arrays",
        "tree/keys.py",
        "jax.random.fold_in(jax.random.fold_in(as_key(key), step), leaf)",
        "jax.random.fold_in(as_key(key), step)",
        "tests/test_noise.py",
    ),
    Mutation(
        "apply_every: the sum is kept",
        "transforms/every.py",
        "Accumulated(jnp.where(due, 0.0, total))",
        "Accumulated(total)",
        ORACLES.format("apply_every"),
    ),
    Mutation(
        "flatten: parts in another place",
        "wrappers/flatten.py",
        "start + size].reshape(shape), start + size",
        "start + size].reshape(shape), start",
        ORACLES.format("flatten"),
    ),
    Mutation(
        "adamax: eps outside the maximum", "optimizers/adamax.py", "jnp.abs(grad) + eps)", "jnp.abs(grad)) + eps", ORACLES.format("adamax")
    ),
    Mutation(
        "adabelief: against the mean before",
        "optimizers/adabelief.py",
        "abs_sq(grad - mu)",
        "abs_sq(grad - slots.mu)",
        ORACLES.format("belief"),
    ),
    Mutation(
        "amsgrad: torch's order not corrected",
        "optimizers/amsgrad.py",
        "top = debias(nu_max, b2, step) if",
        "top = nu_max if",
        ORACLES.format("amsgrad"),
    ),
    Mutation(
        "nadam: product without the next weight",
        "optimizers/nadam.py",
        "(later / (1 - product * later))",
        "(later / (1 - product))",
        ORACLES.format("nadam"),
    ),
    Mutation(
        "radam: rho one step late",
        "optimizers/radam.py",
        "effective_length(b2, step, longest)",
        "effective_length(b2, step + 1, longest)",
        ORACLES.format("radam"),
    ),
    Mutation(
        "yogi: as Adam",
        "optimizers/yogi.py",
        "slots.nu - (1 - b2) * jnp.sign(slots.nu - square) * square",
        "slots.nu - (1 - b2) * (slots.nu - square)",
        ORACLES.format("yogi"),
    ),
    Mutation(
        "adan: the first difference is the gradient",
        "optimizers/adan.py",
        "jnp.where(step > 1, grad - slots.previous, 0)",
        "grad - slots.previous",
        ORACLES.format("adan"),
    ),
    Mutation(
        "laprop: r not corrected",
        "optimizers/laprop.py",
        "jnp.sqrt(debias(nu, b2, step) + eps_root)",
        "jnp.sqrt(nu + eps_root)",
        ORACLES.format("laprop"),
    ),
    Mutation("grams: sign of the momentum", "optimizers/grams.py", "jnp.sign(grad) * size", "jnp.sign(mu) * size", ORACLES.format("grams")),
    # wrappers and what asks for the loss
    Mutation(
        "schedule-free: weights read late",
        "wrappers/schedule_free.py",
        "shift_schedule(learning_rate, 1)",
        "shift_schedule(learning_rate, 0)",
        ORACLES.format("schedule_free"),
    ),
    Mutation(
        "lookahead: slow step to the old fast",
        "wrappers/lookahead.py",
        "slow_step_size * (fast + update - slow)",
        "slow_step_size * (fast - slow)",
        ORACLES.format("lookahead"),
    ),
    Mutation(
        "asam: T once", "wrappers/sam.py", "(jnp.abs(param) + eps) ** 2 * grad", "(jnp.abs(param) + eps) * grad", ORACLES.format("asam")
    ),
    Mutation(
        "plateau: relative to v itself",
        "transforms/plateau.py",
        "best - rtol * jnp.abs(best) - atol",
        "best - rtol * best - atol",
        "tests/test_corner_cases.py -k plateau",
    ),
    Mutation(
        "params_ema: before the step",
        "wrappers/params_ema.py",
        "average(slots.ema, param + grad, decay)",
        "average(slots.ema, param, decay)",
        "tests/test_wrappers.py -k average",
    ),
    Mutation(
        "hutchinson: one stream for all arrays",
        "transforms/hutchinson.py",
        "path_hash(paths[index]))",
        "path_hash(''))",
        "tests/test_extras.py -k signs",
    ),
    Mutation(
        "dpsgd: noise not over the batch",
        "transforms/privacy.py",
        "noise_multiplier / batch",
        "noise_multiplier",
        "tests/test_extras.py -k variance",
    ),
    # weight decay, the cautious mask, and rules that look at the whole tree
    Mutation(
        "independent decay: times the learning rate once more",
        "core/descend.py",
        '"independent": inverse, "corrected"',
        '"independent": learning_rate * inverse, "corrected"',
        ORACLES.format("independent"),
    ),
    Mutation("cautious mask: mean not kept", "core/cautious.py", "(jnp.sum(agrees) + 1)", "grad.size", ORACLES.format("cautious")),
    Mutation(
        "idle leaves: a rule between is not heeded",
        "core/program.py",
        "            absorbed = ()\n",
        "            pass\n",
        "tests/test_measure.py",
    ),
    Mutation(
        "zclip: gathers for ever", "transforms/zclip.py", "shared.count < warmup_steps", "shared.count < 1000", ORACLES.format("zclip")
    ),
    Mutation(
        "zclip: the average follows what is not cut",
        "transforms/zclip.py",
        "_followed(shared, usual, decay)",
        "_followed(shared, size, decay)",
        ORACLES.format("zclip"),
    ),
    Mutation(
        "zclip: variance about the old mean",
        "transforms/zclip.py",
        "(size - mean) ** 2, decay",
        "(size - kept.mean) ** 2, decay",
        ORACLES.format("zclip"),
    ),
    Mutation(
        "zclip: cut to the threshold", "transforms/zclip.py", "threshold**2 * sigma", "threshold * sigma * excess", ORACLES.format("zclip")
    ),
    Mutation(
        "zclip: max_norm enters the average",
        "transforms/zclip.py",
        "_usual(shared, size, z_threshold, eps))",
        "jnp.minimum(_usual(shared, size, z_threshold, eps), max_norm))",
        ORACLES.format("zclip"),
    ),
    Mutation(
        "zclip: a norm that is not finite counts",
        "transforms/zclip.py",
        "good = jnp.isfinite(size)",
        "good = size == size",
        "tests/test_zclip.py",
    ),
]

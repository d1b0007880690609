"""Cross-entropies, the chunked form and CTC."""

from tests.mutations.row import Mutation

FUNCTIONS = "tests/oracles/test_functions.py -k {}"

CROSS_ENTROPY = [
    Mutation(
        "cross entropy: gradient without the label",
        "losses/cross_entropy.py",
        "slope -= (classes == index).astype(slope.dtype)",
        "slope -= 0 * (classes == index).astype(slope.dtype)",
        FUNCTIONS.format("integer_labels"),
    ),
    Mutation(
        "cross entropy: labels count as if they summed to 1",
        "losses/cross_entropy.py",
        "slope = sum_over(weights, axes) * softmax(",
        "slope = softmax(",
        FUNCTIONS.format("softmax_cross_entropy"),
    ),
    Mutation(
        "cross entropy: the peak is added to the label's logit alone",
        "losses/cross_entropy.py",
        "(accurate(picked) - peak)",
        "accurate(picked)",
        FUNCTIONS.format("integer_labels"),
    ),
    Mutation(
        "cross entropy: nan under the mask reaches second derivatives",
        "losses/log_sum_exp.py",
        "return jnp.exp(powers if mask is None else jnp.where(mask, powers, -jnp.inf))",
        "return jnp.exp(powers) if mask is None else jnp.where(mask, jnp.exp(powers), 0)",
        "tests/unit/losses/test_cross_entropy.py -k poison",
    ),
    Mutation(
        "chunked: earlier sums keep the old peak",
        "losses/chunked.py",
        "total = sums.total * jnp.exp(sums.peak - peak)",
        "total = sums.total * 1.0",
        FUNCTIONS.format("chunked"),
    ),
    Mutation(
        "chunked: the gradient to the features forgets earlier chunks",
        "losses/chunked.py",
        "to_hidden += _multiply(slope, part, places[1])",
        "to_hidden = _multiply(slope, part, places[1])",
        FUNCTIONS.format("chunked"),
    ),
    Mutation(
        "ctc: repeated labels need no blank",
        "losses/ctc.py",
        "repeat = jnp.where(repeats, log_zero, 0)",
        "repeat = jnp.where(repeats, 0 * log_zero, 0)",
        FUNCTIONS.format("ctc_loss"),
    ),
    Mutation(
        "ctc: padded frames lose the gradient of those before",
        "losses/ctc.py",
        "(one, zero, zero, one, zero)",
        "(zero, zero, zero, zero, zero)",
        FUNCTIONS.format("ctc_loss"),
    ),
    Mutation(
        "ctc: weights of a label's ways in another order",
        "losses/ctc.py",
        "begin, same, follow = (",
        "same, begin, follow = (",
        FUNCTIONS.format("ctc_loss"),
    ),
]

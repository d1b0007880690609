"""Why a case of Optax's suite fails on gradtx: one row for each kind of failure.

A row names cases by a regular expression on `area::Class.method` and on the text of the failure.
Rows that match no failing case, and failing cases that no row matches, are errors.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tests.peer.suite import Case

PRIVATE = "reads private state"
TEXT = "another text of an error"
DIFFERENCE = "a reasoned difference (row in from_optax)"
OPTAX = "fails with Optax too"
FAULT = "a fault"
KINDS = (PRIVATE, TEXT, DIFFERENCE, OPTAX)
"""The classes of failures that may stay."""


class Reason(NamedTuple):
    """The class of some failures, and the reason in one sentence."""

    case: str
    kind: str
    why: str
    text: str = ""

    def explains(self, case: Case) -> bool:
        """Whether this row is about a case that failed."""
        shown = f"{case.error}: {case.text}"
        return bool(re.fullmatch(self.case, case.key) and re.search(self.text, shown))


POSITIONS = "a state has names, not positions: `state.count`, `state.mu`"
STATE_CLASS = "compares with a state class of Optax's; a gradtx.State holds slots by name"
HELPER = "a private helper of Optax"
PRINTED = "the text that `verbose` prints"
FLOAT32 = "slots of bfloat16 parameters are float32"
EARLIER = "the error comes at the call of the builder, not at `update`"

REASONS: tuple[Reason, ...] = (
    Reason(r"alias::AliasTest.test_explicit_dtype\d+", DIFFERENCE, FLOAT32, "bfloat16"),
    Reason(r"alias::LBFGSTest\..*", PRIVATE, HELPER, "_precondition_by_lbfgs"),
    Reason(r"base::BaseTest.test_set_to_zero_is_stateless", PRIVATE, STATE_CLASS, "!= EmptyState"),
    Reason(
        r"base::ExtraArgsTest.test_isinstance",
        DIFFERENCE,
        "every transformation takes extra arguments, so there is one class",
    ),
    Reason(
        r"contrib/reduce_on_plateau::.*reduced_after_cooldown_period_is_over\d",
        PRIVATE,
        POSITIONS,
        "not enough values to unpack",
    ),
    Reason(r"contrib/reduce_on_plateau::.*", PRIVATE, STATE_CLASS, "ReduceLROnPlateauState"),
    Reason(r"contrib/muon::.*test_reshape_inverse_.*", PRIVATE, HELPER, "_compute_muon_reshape"),
    Reason(
        r"contrib/muon::.*test_newton_schulz\w*",
        PRIVATE,
        HELPER + ": `gradtx.linalg.orthogonalize`",
        "orthogonalize_via_newton_schulz",
    ),
    Reason(r"contrib/muon::.*test_dim_nums_combinations_\w+", PRIVATE, POSITIONS, "StateError"),
    Reason(
        r"contrib/(galore|schedule_free)::.*test_(mu_dtype_\w+|explicit_dtype\d+)",
        DIFFERENCE,
        FLOAT32,
        "bfloat16",
    ),
    Reason(
        r"linear_algebra::.*test_power_iteration_cond_fun",
        PRIVATE,
        HELPER,
        "_power_iteration_cond_fun",
    ),
    Reason(r"linesearch::.*test_failure_\w+", PRIVATE, PRINTED, "FLAG_"),
    Reason(r"linesearch::.*test_extract_fns_kwargs", PRIVATE, HELPER, "_extract_fns_kwargs"),
    Reason(
        r"linesearch::.*raises_on_unused_extra_args",
        DIFFERENCE,
        "another member of the chain may need an argument that the loss does not take",
        "TypeError not raised",
    ),
    Reason(
        r"linesearch::.*test_value_and_grad_from_state",
        TEXT,
        "several line searches are a StateError, which is a ValueError and not a KeyError",
        "keep one line search",
    ),
    Reason(
        r"schedules/inject::.*test_hyperparam_default_dtype_bf16",
        DIFFERENCE,
        "injected numbers are float32, whatever the dtype of a layer",
        "bfloat16",
    ),
    Reason(
        r"schedules/schedule::WarmupCosineDecayTest.test_zero_peak_value",
        DIFFERENCE,
        "`end_value` is the value at the end, also from a peak of 0",
        "Not equal to tolerance",
    ),
    Reason(r"transform::.*test_lion_invalid_mode_raises", TEXT, EARLIER, "is unknown; choose one"),
    Reason(
        r"transform::.*test_scale_by_polyak_l1_norm",
        TEXT,
        "gradients of another structure are named before the missing loss; both are ValueErrors",
        "differ in structure",
    ),
    Reason(
        r"transforms/adding::.*test_none_argument",
        DIFFERENCE,
        "None in the place of all gradients is an error",
        "are None",
    ),
    Reason(
        r"transforms/clipping::.*test_clip_by_block_rms",
        OPTAX,
        "the last bit of a root mean square",
        "0.9999999",
    ),
    Reason(
        r"transforms/constraining::.*test_zero_nans", PRIVATE, STATE_CLASS, "different structures"
    ),
    Reason(
        r"transforms/freezing::.*test_freeze_updates_\w+",
        PRIVATE,
        "asserts that a state without slots does not change; the count of a State does",
        "not equal",
    ),
    Reason(
        r"transforms/freezing::.*bad_structure\w*",
        TEXT,
        "the text names the path that is missing",
        "does not match",
    ),
    Reason(
        r"transforms/masking::.*test_masked_state_structure",
        DIFFERENCE,
        "masked leaves of a state are None, not `MaskedNode()`",
        "different structures",
    ),
    Reason(
        r"transforms/masking::.*test_tree_map_params", PRIVATE, POSITIONS, "nothing at 'params'"
    ),
    Reason(r"transforms/masking::.*callable_pytree", PRIVATE, HELPER, "_mask_callable"),
    Reason(
        r"tree_utils/state_utils::.*test_(adam|dict_based_optimizers|map_\w+_to_none)",
        PRIVATE,
        STATE_CLASS,
        "AssertionError",
    ),
    Reason(
        r"tree_utils/state_utils::.*test_tree_(get|get_all_with_path|set)",
        PRIVATE,
        "expects a count for each member, at paths of Optax's state classes; a State has one",
        "AssertionError",
    ),
    Reason(
        r"utils::MultiNormalDiagFromLogScaleTest.*",
        PRIVATE,
        "the private class behind `multi_normal`, which is public",
        "MultiNormalDiagFromLogScale",
    ),
    Reason(
        r"losses/ranking::docstrings.*",
        PRIVATE,
        "the docstrings of a private module of Optax",
        "Stopped",
    ),
    Reason(
        r"update::.*test_none_argument_incremental_update",
        DIFFERENCE,
        "None among the new tensors is an error: the average would be lost",
        "has shape None",
    ),
)


def explained(cases: Sequence[Case]) -> dict[Reason, list[Case]]:
    """The failing cases of each row, in the order of the rows; the first row that matches wins."""
    rows: dict[Reason, list[Case]] = {reason: [] for reason in REASONS}
    for case in failing(cases):
        if (reason := reason_for(case)) is not None:
            rows[reason].append(case)
    return rows


def reason_for(case: Case) -> Reason | None:
    return next((reason for reason in REASONS if reason.explains(case)), None)


def failing(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.outcome == "failed"]


def unexplained(cases: Sequence[Case]) -> list[Case]:
    """The failing cases without a row."""
    return [case for case in failing(cases) if reason_for(case) is None]


def blamed(cases: Sequence[Case]) -> list[Case]:
    """The failing cases that are said to fail with Optax too."""
    pairs = ((case, reason_for(case)) for case in failing(cases))
    return [case for case, reason in pairs if reason is not None and reason.kind == OPTAX]


def idle(cases: Sequence[Case]) -> list[Reason]:
    """The rows that no failing case needs any more, of the areas that ran."""
    areas = {case.area for case in cases}
    rows = explained(cases)
    return [one for one in REASONS if not rows[one] and one.case.split("::")[0] in areas]

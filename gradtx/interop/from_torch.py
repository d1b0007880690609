"""States of torch's optimizers, read from their `state_dict`, as states of gradtx."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradtx.compose.transformation import TransformationLike, as_transformation
from gradtx.definition.errors import StateError
from gradtx.definition.spelling import suggest
from gradtx.definition.state import slot_entries
from gradtx.definition.types import Params, State
from gradtx.interop.checkpoint_leaves import named_leaves
from gradtx.interop.from_optax import filled_state

FIELDS: dict[str, tuple[str, ...]] = {
    "mu": ("exp_avg",),
    "nu": ("exp_avg_sq", "square_avg", "exp_inf"),
    "nu_max": ("max_exp_avg_sq",),
    "trace": ("momentum_buffer",),
    "sum_of_squares": ("sum",),
}
"""By slot: the fields of torch that hold the same numbers."""

Fields = Mapping[str, Any]


def from_torch_state(
    tx: TransformationLike,
    state_dict: Mapping[str, Any],
    params: Params,
    *,
    names: Sequence[str] | None = None,
    paths: Mapping[str, str] | None = None,
    axes: Mapping[str, Sequence[int]] | None = None,
    count: int | None = None,
) -> State:
    r"""Convert the `state_dict` of a torch optimizer to a state of gradtx.

    The moments of `torch.optim.Adam`, `AdamW`, `RMSprop`, `Adagrad` and of `SGD` with momentum have
    the same equations here, so the next update is the one that torch would make: `exp_avg` is `mu`,
    `exp_avg_sq` is `nu`, `momentum_buffer` is `trace`. torch is not imported; the values may be its
    tensors on the CPU or arrays of NumPy.

    When: a training that began in torch goes on in JAX. When not: parameters alone; map them as
    your model library does.

    Args:
      tx: the definition, for example `gradtx.adamw(1e-3)`.
      state_dict: that of `optimizer.state_dict()`, whose `state` has numbers or names of parameters
        as keys.
      params: the parameters, for structure, shapes and dtypes.
      names: torch's names in the order of `model.named_parameters()`. None: those that the
        `state_dict` has, where the optimizer was made with `named_parameters()`.
      paths: by torch's name: the path in `params`. Without an entry, `fc.weight` is `fc/weight`.
      axes: by a regular expression on torch's name: the order of torch's axes in the array here,
        `{r"\.weight$": (1, 0)}` for a kernel of (inputs, outputs), `(2, 3, 1, 0)` for a
        convolution. The first expression that is found in a name counts.
      count: the number of updates so far. None: as torch counts them, or 0 where it does not, as in
        `SGD`.

    Raises:
      StateError: names, slots, shapes or counts do not fit; the error names the parameter.

    >>> import gradtx, jax.numpy as jnp, numpy as np
    >>> moments = {"step": 3, "exp_avg": np.ones((2, 3), np.float32)}
    >>> saved = {"state": {0: moments | {"exp_avg_sq": np.ones((2, 3), np.float32)}}}
    >>> params = {"fc": {"kernel": jnp.ones((3, 2))}}
    >>> state = gradtx.from_torch_state(
    ...     gradtx.adamw(1e-3), saved, params, names=["fc.weight"],
    ...     paths={"fc.weight": "fc/kernel"}, axes={r"weight$": (1, 0)},
    ... )
    >>> int(state.count), state.mu["fc"]["kernel"].shape
    (3, (3, 2))

    Source: the fields of `torch.optim`, as `state_dict()` shows them.

    See also: `from_optax_state`, `restore_state`.
    """
    like = as_transformation(tx).init(params)
    named = _by_name(state_dict, names)
    where = {(paths or {}).get(name, name.replace(".", "/")): name for name in named}
    _check_paths(where, params)
    values = {
        "/".join(filter(None, ("slots", *path, leaf))): _moment(path[-1], leaf, where, named, axes)
        for path, tree in slot_entries(like)
        for leaf in named_leaves(tree)
    }
    return filled_state(like, values, _count(named) if count is None else count)


def _by_name(state_dict: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Fields]:
    """The fields of every parameter by torch's name."""
    state = state_dict["state"]
    if not all(str(key).isdigit() for key in state):
        return {str(name): fields for name, fields in state.items()}
    if names is None:
        groups = state_dict.get("param_groups", ())
        names = [name for group in groups for name in group.get("param_names", ())]
    if len(names) <= max((int(key) for key in state), default=-1):
        raise StateError(
            f"from_torch_state: the state_dict numbers its parameters to {max(map(int, state))}, "
            f"and names= has {len(names)}: pass names=[name for name, _ in "
            f"model.named_parameters()]"
        )
    return {names[int(key)]: fields for key, fields in state.items()}


def _check_paths(where: Mapping[str, str], params: Params) -> None:
    """Raise where a parameter of torch has no place here."""
    known = named_leaves(params)
    for path, name in where.items():
        if path not in known:
            raise StateError(
                f"from_torch_state: the parameters have nothing at {path!r} for {name!r}"
                f"{suggest(path, known)}; pass paths={{{name!r}: ...}}"
            )


def _moment(
    slot: str,
    path: str,
    where: Mapping[str, str],
    named: Mapping[str, Fields],
    axes: Mapping[str, Sequence[int]] | None,
) -> Any:
    """The array of a slot for one parameter, its axes in their order here."""
    name = where.get(path)
    if name is None:
        raise StateError(
            f"from_torch_state: the state_dict has nothing for the parameter {path!r}; it has "
            f"{', '.join(named)}: pass paths= by torch's names"
        )
    field = next((one for one in FIELDS.get(slot, ()) if one in named[name]), None)
    if field is None:
        raise StateError(
            f"from_torch_state: no field of torch's state holds the slot {slot!r} of {path!r}; "
            f"{name!r} has {', '.join(named[name])}: write the definition that was trained"
        )
    array = np.asarray(named[name][field])
    order = next((one for rule, one in (axes or {}).items() if re.search(rule, name)), None)
    return array if order is None else array.transpose(tuple(order))


def _count(named: Mapping[str, Fields]) -> int:
    steps = {name: int(fields["step"]) for name, fields in named.items() if "step" in fields}
    if len(set(steps.values())) > 1:
        (first, one), *others = steps.items()
        other, number = next((name, step) for name, step in others if step != one)
        raise StateError(
            f"from_torch_state: {first!r} has made {one} steps, and {other!r} {number}: pass "
            f"count= with the number of the whole"
        )
    return next(iter(steps.values()), 0)

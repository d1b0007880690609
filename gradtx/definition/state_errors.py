"""The texts of errors about a state: entries that do not exist, or that cannot be written."""

from collections.abc import Collection, Sequence

from gradtx.definition.spelling import suggest


def immutable(name: str) -> str:
    """The text for an entry that is written in place."""
    return (
        f"a State is not changed in place: write state = state._replace({name}=...), and put "
        f"hyperparameters that a loop sets into tunable(...)"
    )


def missing_slot(name: str, slots: Collection[str]) -> str:
    """The text for a name that no slot has."""
    if name == "hyperparams":
        return (
            "this state holds no hyperparams: wrap the definition in tunable(...), or read "
            "gradtx.hyperparams(tx, state)"
        )
    near = suggest(name, slots)
    return (
        f"this state has no slot {name!r}{near}; it has {', '.join(['count', *slots])}"
        f"{'' if near else '; hyperparameters are in gradtx.hyperparams(tx, state)'}"
    )


def ambiguous_slot(name: str, paths: Sequence[str]) -> str:
    """The text for a name that several slots have."""
    first, *others = (f"state[{path!r}]" for path in paths)
    return f"several members of this state have {name!r}: read {first}, or {', '.join(others)}"


def missing_path(key: str, name: str, where: str, known: Sequence[str], slots: str) -> str:
    """The text for a path at which nothing is; `slots` is the path of a slot of that name."""
    below = f"under {where!r} " if where else ""
    read = f"; read state.{key}, or state[{slots!r}]" if slots else ""
    return (
        f"the state has nothing at {key!r}{suggest(name, known)}; {below}it holds "
        f"{', '.join(map(repr, known)) or 'nothing'}{read}"
    )

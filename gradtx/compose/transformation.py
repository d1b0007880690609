"""`GradientTransformation`: an optimizer as data, and the pair `(init, update)` that it stands for."""

import functools
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, Protocol

import jax.numpy as jnp

from gradtx.definition.definition import Definition, Factory, register
from gradtx.definition.errors import GradtxError, StateError
from gradtx.definition.types import Params, State, Updates
from gradtx.engine.program import (
    BoundRule,
    Call,
    Clock,
    init_program,
    runs,
    tick,
    update_program,
    without_idle,
)
from gradtx.engine.rules import Child, LeafRule, TreeRule
from gradtx.engine.selector import Selector
from gradtx.engine.slots import check_members, slots_at

P = ParamSpec("P")


class Pair(Protocol):
    """Anything with `init` and `update`: transformations of Optax's among them."""

    @property
    def init(self) -> Callable[..., Any]: ...
    @property
    def update(self) -> Callable[..., Any]: ...


class Branch(NamedTuple):
    """A member of a combinator: its name (None: it keeps its slots where the combinator does) and
    its leaves.
    """

    name: str | None
    member: "GradientTransformation"
    selector: Selector | None = None


class MapRules(NamedTuple):
    """Another definition, every rule of which is first handed to a function: a storage put on it,
    say.
    """

    inner: "GradientTransformation"
    rewrite: Callable[[LeafRule | TreeRule], LeafRule | TreeRule]


class GradientTransformation(Definition):
    """A pure pair `init(params) -> state`, `update(updates, state, params) -> (updates, state)`.

    The object is an immutable pytree: its hyperparameters are leaves. Close over it and they are
    constants; pass it to `jit` and a new learning rate never recompiles; `vmap` over it and many
    learning rates train in one program. It prints as the call that made it, compares by value,
    and hashes when its leaves are Python numbers. `init, update = tx` works.

    Called directly with two plain functions it hands them through: their state is their own.
    """

    __slots__ = ()

    def __new__(
        cls, init: Callable[[Params], Any], update: Callable[..., Any]
    ) -> "GradientTransformation":
        return cls.of(PLAIN, {"init": init, "update": update})

    def init(self, params: Params) -> Any:
        """The state before the first update.

        `params` may be arrays or `jax.ShapeDtypeStruct`s. The result is a `State`: a count of 0,
        and the slots of every member by name; a stateless member has none.
        """
        if self._is_plain:
            return self.arguments["init"](params)
        count = jnp.zeros((), jnp.int32)
        return State(count, self.init_slots(params, count))

    def update(
        self, updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Any, Any]:
        """One step: gradients in, what to add to the parameters out, and the next state.

        `extra` (`value=`, `grad=`, `value_fn=`, ...) reaches the members that ask for it.
        Nothing is changed in place: when this raises, `state` is as it was.
        """
        if self._is_plain:
            return self.arguments["update"](
                updates, state, params, **accepted(self.arguments["update"], extra)
            )
        return self.update_then((), updates, state, params, extra)

    def update_then(
        self,
        last: tuple[BoundRule, ...],
        updates: Updates,
        state: Any,
        params: Params | None,
        extra: Mapping[str, Any],
    ) -> tuple[Any, Any]:
        """`update` with further rules behind those of the definition, in the same kernels where
        these end with leaf rules.
        """
        if not isinstance(state, State):
            raise StateError(
                f"the state of {self.name} is a {type(state).__name__}, not a gradtx.State: make it with tx.init(params)"
            )
        clock = tick(state.count)
        program = self._runs(last)
        check_members(self.items, state.slots)
        updates, slots, _ = update_program(
            program, updates, state.slots, params, Call(clock, extra, None, {})
        )
        count = self.count_after(slots, clock.step)
        return updates, State(
            jnp.array(count, copy=True) if self.own_clock else count, slots
        )  # one array twice could not be donated

    def init_slots(self, params: Params, count: Any = 0) -> Any:
        """The slots alone, without a clock: what a wrapper keeps of its inner transformation."""
        return init_program(self.items, params, count)

    def update_slots(
        self,
        updates: Updates,
        slots: Any,
        params: Params | None,
        step: Any,
        extra: Mapping[str, Any],
        gate: Any = None,
    ) -> tuple[Any, Any]:
        """`update` without a clock, for wrappers: `step` is 1, 2, 3, ... and is handed down to
        every member.

        With `acts`, a bool, slots change only where it is True; where it is False the updates mean
        nothing."""
        return self.watch_slots(updates, slots, params, step, extra, gate)[:2]

    def watch_slots(
        self,
        updates: Updates,
        slots: Any,
        params: Params | None,
        step: Any,
        extra: Mapping[str, Any],
        gate: Any = None,
    ) -> tuple[Any, Any, Any]:
        """`update_slots`, and what the leaf rules concluded of the whole tree, such as a norm: name
        -> scalar, by member.
        """
        return self._advance(updates, slots, params, Call(Clock(step - 1, step), extra, gate, {}))

    def count_after(self, slots: Any, step: Any) -> Any:
        """The count of a state whose new slots these are: `step`, unless the whole definition goes
        by a member's own clock.
        """
        if not self.own_clock:
            return step
        found = members_inside(self.items[0], slots, step)[0]
        return found.member.count_after(found.slots, found.count)

    @property
    def own_clock(self) -> bool:
        """Whether all of this definition is a rule whose member has a clock of its own, which is
        then that of the state.
        """
        rule = self.items[0].rule if len(self.items) == 1 and not self.items[0].selectors else None
        return isinstance(rule, TreeRule) and rule.own_clock

    def _advance(
        self, updates: Updates, slots: Any, params: Params | None, call: Call
    ) -> tuple[Any, Any, Any]:
        check_members(self.items, slots)
        return update_program(self._runs(), updates, slots, params, call)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    @property
    def name(self) -> str:
        """What a chain calls this member: its factory's name; a wrapper is called like what it
        wraps.
        """
        if self._is_plain:
            return _plain_name(self.arguments["init"])
        if self.factory.__name__ in LIFTERS:
            return self.expansion.name
        if "inner" in self.factory.dynamic:
            return self.arguments["inner"].name
        return self.arguments.get("name") or self.factory.__name__

    @property
    def expansion(self) -> Any:
        """What the definition stands for: another definition, a rule, or a combinator's parts."""
        return self._cached("expansion", self.call)

    @property
    def _is_plain(self) -> bool:
        return self.factory is PLAIN

    @property
    def items(self) -> tuple[BoundRule, ...]:
        """The rules that this definition comes down to, in the order in which they act."""
        return self._cached("items", lambda: without_idle(list(_rooted(self, list(_items(self))))))

    @property
    def needs(self) -> frozenset[str]:
        """What `update` must be given beside the gradients and the state: "params", and extra
        arguments by name.
        """
        members = (
            one
            for item in self.items
            if isinstance(item.rule, TreeRule)
            for one in item.rule.options.values()
        )
        children = (one.needs for one in members if isinstance(one, GradientTransformation))
        own = (
            {*item.rule.extra, *(["params"] if item.rule.needs_params else [])}
            for item in self.items
        )
        return frozenset[str]().union(*children, *own)

    def _runs(self, last: tuple[BoundRule, ...] = ()) -> tuple[tuple[BoundRule, ...], ...]:
        return self._cached(
            ("runs", *(item.name for item in last)), lambda: runs((*self.items, *last))
        )

    def _cached(self, name: Hashable, make: Callable[[], Any]) -> Any:
        if name not in self.cache:
            self.cache[name] = make()
        return self.cache[name]

    def verify(self) -> None:
        expansion = self.expansion
        if not isinstance(
            expansion, GradientTransformation | LeafRule | TreeRule | MapRules | list
        ):
            raise GradtxError(
                f"{self.factory.__name__} returned {type(expansion).__name__}: return leafwise(...), treewise(...) or chain(...)"
            )

    def item_names(self, items: Sequence[Any]) -> Sequence[Any]:
        if all(isinstance(item, GradientTransformation) for item in items):
            return member_names(items)
        return super().item_names(items)

    @classmethod
    def coerce(cls, value: Any, where: str) -> "GradientTransformation":
        """Anything with `init` and `update` as a member: a transformation of Optax's, too."""
        if callable(getattr(value, "init", None)) and callable(getattr(value, "update", None)):
            return cls(value.init, value.update)
        raise GradtxError(
            f"{where} is {value!r}, which has no init and update: pass a gradient transformation"
        )


register(GradientTransformation)

TransformationLike = GradientTransformation | Pair
"""What may stand where a transformation is wanted; it becomes a `GradientTransformation`."""


def as_transformation(value: TransformationLike) -> GradientTransformation:
    """The value as a `GradientTransformation`, wrapped if it is another library's."""
    return (
        value
        if isinstance(value, GradientTransformation)
        else GradientTransformation.coerce(value, "transformation")
    )


def member_names(members: Sequence[GradientTransformation]) -> list[str]:
    """A name for every member: its own, numbered from the second of the same name on."""
    names: list[str] = []
    for member in members:
        name, number = member.name, 1
        while name in names:
            number += 1
            name = f"{member.name}_{number}"
        names.append(name)
    return names


def definition(
    build: Callable[P, Any], name: str | None = None
) -> Callable[P, GradientTransformation]:
    """Turn a function that returns a transformation into a maker of definitions.

    The arguments annotated as hyperparameters (`Hyperparam`, `NonNegative`, `Decay`, ...) or as
    `GradientTransformation` become the data of the definition; the others are static. Its name,
    repr, equality, JSON form and `replace` all follow from the call.
    """
    factory = Factory(build, GradientTransformation, name=name)

    @functools.wraps(build)
    def make(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        return factory(*args, **kwargs)

    make.factory = factory  # pyright: ignore[reportAttributeAccessIssue]
    return make


LIFTERS = frozenset({"leafwise", "matrixwise", "treewise", "wrapwise"})
"""The makers of rules: a rule is called like the builder around them."""
SCAFFOLDING = frozenset({"chain", "descend"})
"""The combinators that leave no trace in a path where a builder uses them."""


class Place(NamedTuple):
    """Where in a definition its rules are bound: the path of their slots, the masks, the builder."""

    path: tuple[str, ...] = ()
    selectors: tuple[Selector, ...] = ()
    builder: str = ""

    def inside(self, name: str | None, selector: Selector | None) -> "Place":
        """The place of one branch of a combinator."""
        path = self.path if name is None else (*self.path, name)
        masks = self.selectors if selector is None else (*self.selectors, selector)
        return Place(path, masks, self.builder if name is None else "")


def _items(tx: GradientTransformation, place: Place = Place()) -> Iterator[BoundRule]:
    """Bind the rules that a definition comes down to, in the order in which they act."""
    expansion = tx.expansion
    name = tx.factory.__name__
    if isinstance(expansion, GradientTransformation):
        yield from _items(
            expansion, place._replace(builder=place.builder if name in LIFTERS else name)
        )
    elif isinstance(expansion, LeafRule | TreeRule):
        yield BoundRule(place.path, expansion, place.selectors)
    elif isinstance(expansion, MapRules):
        for item in _items(expansion.inner, place):
            yield item._replace(rule=expansion.rewrite(item.rule), origin=item.as_built.rule)
    else:
        branches = list(_branches(expansion, place.builder))
        for branch, called in zip(branches, _unique([one.name for one in branches]), strict=True):
            yield from _items(branch.member, place.inside(called, branch.selector))


def _branches(expansion: Sequence[Branch], builder: str) -> Iterator[Branch]:
    """The branches of a combinator; inside a builder, those of a chain in place of the chain."""
    for branch in expansion:
        name, is_named = branch.member.factory.__name__, branch.name != branch.member.name
        if builder and not is_named and branch.selector is None and name in SCAFFOLDING:
            yield from _branches(_parts_of(branch.member), builder)
        else:
            yield branch


def _parts_of(tx: GradientTransformation) -> Sequence[Branch]:
    expansion = tx.expansion
    return _parts_of(expansion) if isinstance(expansion, GradientTransformation) else expansion


def _unique(names: Sequence[str | None]) -> list[str | None]:
    """The names, numbered from the second of the same name on."""
    found: list[str | None] = []
    for name in names:
        called, number = name, 1
        while name is not None and called in found:
            number += 1
            called = f"{name}_{number}"
        found.append(called)
    return found


def _rooted(tx: GradientTransformation, items: list[BoundRule]) -> Iterator[BoundRule]:
    """A rule at the root keeps its slots under its own name, unless they are a dict of members
    already.
    """
    for item in items:
        yield item if item.path or item.rule.keeps_at_root else item._replace(path=(tx.name,))


def checked_state(tx: GradientTransformation, state: Any) -> State:
    """The state of a definition that is not another library's, before it is read."""
    if not isinstance(state, State):
        raise StateError(
            f"the state of {tx.name} is a {type(state).__name__}, not a gradtx.State: pass the state that tx.update gave"
        )
    return state


def members_inside(item: BoundRule, slots: Any, count: Any) -> list[Child]:
    """What the rule of an item wraps, as it stands in the slots of the whole program."""
    return (
        item.rule.members(slots_at(slots, item.path), count)
        if isinstance(item.rule, TreeRule) and item.rule.keeps
        else []
    )


def accepted(function: Callable[..., Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The extra arguments that a plain update function takes."""
    parameters = _parameters(function)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(extra)
    return {name: value for name, value in extra.items() if name in parameters}


@functools.lru_cache(maxsize=256)
def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _plain_name(init: Callable[..., Any]) -> str:
    """The factory of a plain pair, by where its `init` was defined: `optax.scale_by_adam` reads
    `scale_by_adam`.
    """
    return getattr(init, "__qualname__", "transformation").split(".")[0]


def _plain_init(params: Any, *, init: Callable[..., Any]) -> object:
    return init(params)


def _plain_update(
    updates: Any,
    state: Any,
    params: Any,
    step: Any,
    *,
    update: Callable[..., Any],
    extra: Mapping[str, Any],
) -> Any:
    return update(updates, state, params, **accepted(update, extra))


def is_plain(rule: LeafRule | TreeRule) -> bool:
    """Whether a rule stands for a plain pair, such as another library's transformation."""
    return rule.update is _plain_update if isinstance(rule, TreeRule) else False


def _expand_plain(init: Callable[..., Any], update: Callable[..., Any]) -> TreeRule:
    """A plain pair as a member: a rule on trees whose slots are the pair's own state."""
    return TreeRule(
        _plain_name(init), _plain_init, _plain_update, {}, {"init": init, "update": update}
    )


PLAIN = Factory(_expand_plain, GradientTransformation)
PLAIN.__name__ = "GradientTransformation"
_expand_plain.factory = PLAIN  # pyright: ignore[reportFunctionMemberAccess]

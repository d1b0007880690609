"""`GradientTransformation`: an optimizer as data, which stands for a pair `(init, update)`."""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, ParamSpec, Protocol, Self, cast

import jax
import jax.numpy as jnp

from gradtx._lazy import upper
from gradtx.compose.binding import LIFTERS, MapRules, bind_rules, member_names, with_last
from gradtx.compose.pairs import call_pair, pair_name
from gradtx.compose.states import check_foreign, check_params, wrong_state
from gradtx.definition.call_checks import holds_arrays
from gradtx.definition.definition import Definition, Factory, uncalled_builder
from gradtx.definition.description import Description
from gradtx.definition.errors import GradtxError, hide_frames
from gradtx.definition.pytree import register
from gradtx.definition.schedule import Schedule
from gradtx.definition.signature import LazySignature
from gradtx.definition.types import Params, Slots, State, Updates
from gradtx.engine.clock import Clock, next_count
from gradtx.engine.gradients import check_alone, no_gradients
from gradtx.engine.manual_axes import check_parts
from gradtx.engine.program import BoundRule, group_runs, init_program, update_program
from gradtx.engine.selector import leaves_of
from gradtx.engine.slots import check_members, slots_at
from gradtx.engine.tree_rule import TreeRule
from gradtx.tree.donated import deleted_array, is_deletion
from gradtx.tree.on_meshes import put_as_said, replicate_rest
from gradtx.tree.paths import flatten, key_text

P = ParamSpec("P")


class Pair(Protocol):
    """Anything with `init` and `update`: transformations of Optax's among them."""

    @property
    def init(self) -> Callable[..., Any]: ...
    @property
    def update(self) -> Callable[..., Any]: ...


class GradientTransformation(Definition):
    """A pure pair `init(params) -> state`, `update(updates, state, params) -> (updates, state)`.

    The object is an immutable pytree: its hyperparameters are leaves. Close over it and they are
    constants; pass it to `jit` and a new learning rate never recompiles; `vmap` over it and many
    learning rates train in one program. It prints as the call that made it, compares by value, and
    hashes when its leaves are Python numbers. `init, update = tx` works.

    Called directly with two plain functions it hands them through: their state is their own.
    """

    __slots__ = ()
    public_names: ClassVar[tuple[str, ...]] = ("describe", "init", "name", "needs", "update")
    plural: ClassVar[str] = "transformations"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(cls)

    def __new__(cls, init: Callable[[Params], Any], update: Callable[..., Any]) -> Self:
        return cls.of(PLAIN, {"init": init, "update": update})

    def init(self, params: Params) -> State:
        """Make the state before the first update.

        `params` may be arrays or `jax.ShapeDtypeStruct`s. The `State` has a count of 0, and the
        slots of every member by name; a stateless member has none.
        """
        if self.is_plain:
            return self.arguments["init"](params)
        check_params(self.name, params)
        count = jnp.zeros((), jnp.int32)
        try:
            state = State(count, self.init_slots(params, count))
            return replicate_rest(state, jax.tree.leaves(params))
        except Exception as error:
            raise hide_frames(error) from error.__cause__

    def update(
        self, updates: Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[Updates, State]:
        """Run one step: gradients in, what to add to the parameters out, and the next state.

        `extra` (`value=`, `grad=`, `value_fn=`, ...) reaches the members that ask for it. Nothing
        is changed in place: when this raises, `state` is as it was.
        """
        if self.is_plain:
            return call_pair(self.arguments["update"], updates, state, params, extra)
        try:
            if not isinstance(state, State):
                return self._update_stateless(updates, state, params, extra)
            if updates is None:
                raise no_gradients(self.name)
            check_members(self.rules, state.slots)
            clock = Clock(state.count, next_count(state.count), {})
            if jax.sharding.get_abstract_mesh().manual_axes:
                check_parts(self, updates, state.slots, params, clock.step, extra)
            flow = update_program(self.runs, updates, state.slots, params, clock, extra, None)
            if params is None:  # a member that needs the parameters has said so by now
                check_alone(updates)
            count = clock.step
            if self.own_clock:  # one array twice in a state could not be donated
                count = jnp.array(self.count_after(flow.slots, count), copy=True)
            return flow.leaves.tree, State(count, flow.slots)
        except Exception as error:
            if is_deletion(error):
                trees = {"gradients": updates, "state": state, "parameters": params}
                error = deleted_array(self.name, **trees) or error
            raise hide_frames(error) from error.__cause__

    def _update_stateless(
        self, updates: Updates, state: Any, params: Params | None, extra: Mapping[str, Any]
    ) -> tuple[Updates, Any]:
        """`update` where nothing is stored or counted: any state will do, and comes back."""
        if not self.is_stateless:
            swapped = "the arguments are swapped, call tx.update(grads, state, params)"
            make = "make it with tx.init(params)"
            raise wrong_state(self.name, state, swapped if isinstance(updates, State) else make)
        first = State(jnp.zeros((), jnp.int32), {})
        return self.update(updates, first, params, **extra)[0], state

    def followed_by(self, last: BoundRule) -> "GradientTransformation":
        """This definition with a further rule in its last kernels, for `update` alone."""
        return self._cached(("followed by", last.name), lambda: self._followed_by(last))

    def _followed_by(self, last: BoundRule) -> "GradientTransformation":
        extended = type(self).of(self.factory, self.arguments)
        extended.cache.update(rules=self.rules, runs=group_runs(with_last(self.rules, last)))
        return extended

    def init_slots(self, params: Params, count: Any = 0) -> Any:
        """Make the slots without a clock, for wrappers."""
        return init_program(self.rules, put_as_said(params), count)

    def update_slots(
        self,
        updates: Updates,
        slots: Slots,
        params: Params | None,
        step: Any,
        extra: Mapping[str, Any],
        gate: Any = None,
        *,
        with_stats: bool = False,
    ) -> tuple[Any, ...]:
        """`update` without a clock, for wrappers: `step` is 1, 2, 3, ... for every member.

        With `gate`, a bool, slots change only where it is True; where it is False the updates mean
        nothing. `with_stats` adds a third result: what the rules concluded of the whole tree, such
        as a norm, by member and name.
        """
        check_members(self.rules, slots)
        clock = Clock(step - 1, step, {})
        flow = update_program(self.runs, updates, slots, params, clock, extra, gate)
        result = flow.leaves.tree, flow.slots
        return (*result, flow.stats) if with_stats else result

    def evaluate_slots(self, slots: Slots, params: Params, count: Any) -> Params:
        """`eval_params` without a clock, for wrappers: every member sees the trained parameters."""
        check_members(self.rules, slots)
        leaves, result = leaves_of(params), params
        for bound in self.rules:
            own = slots_at(slots, bound.path) if bound.rule.keeps else None
            if bound.rule.has_evaluation:
                new = bound.rule.evaluate(bound, own, leaves, count)
                result = _lay_over(leaves, result, new, bound.active(leaves))
            else:
                check_foreign(bound.name, own)
        return result

    def count_after(self, slots: Slots, step: Any) -> Any:
        """The count of a state with these slots: that of a member whose clock is its own."""
        tx, count = self, step
        while tx.own_clock:
            (bound,) = tx.rules
            ((tx, slots, count), *_) = bound.rule.children(slots_at(slots, bound.path), count)
        return count

    @property
    def own_clock(self) -> bool:
        """Whether all of this definition is a rule whose member's clock is that of the state."""
        return len(self.rules) == 1 and not self.rules[0].selectors and self.rules[0].rule.own_clock

    @property
    def has_evaluation(self) -> bool:
        """Whether there are parameters to evaluate that are not those it trains."""
        return any(bound.rule.has_evaluation for bound in self.rules)

    def describe(self, params: Params, state: Any = None) -> Description:
        """Describe the optimizer: its members as a tree, and what trains each parameter.

        With the learning rates at the count of `state`. See `gradtx.describe`.
        """
        return upper("gradtx.inspect.describe").describe(self, params, state)

    def _repr_html_(self) -> str:
        return upper("gradtx.inspect.describe_html").definition_html(self)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    def __getitem__(self, index: int) -> Callable[..., Any]:
        return (self.init, self.update)[index]

    @property
    def name(self) -> str:
        """The name of this member in a chain: its builder's; a wrapper has that of its inside."""
        if self.is_plain:
            return pair_name(self.arguments["init"])
        if self.factory.__name__ in LIFTERS:
            return self.expansion.rule.name
        if "inner" in self.factory.dynamic:
            return self.arguments["inner"].name
        return self.arguments.get("name") or self.factory.__name__

    @property
    def expansion(self) -> Any:
        """What the definition stands for: another definition, a rule, or a combinator's
        branches.
        """
        return self._cached("expansion", self.call)

    @property
    def is_plain(self) -> bool:
        """Whether this is another library's pair of functions."""
        return self.factory is PLAIN

    @property
    def is_stateless(self) -> bool:
        """Whether `update` needs no state: it stores nothing, and does not read the count."""
        return self._cached("stateless", lambda: not any(map(_reads_state, self.rules)))

    @property
    def rules(self) -> tuple[BoundRule, ...]:
        """The rules that this definition comes down to, in the order in which they act."""
        return self._cached("rules", lambda: bind_rules(self))

    @property
    def needs(self) -> frozenset[str]:
        """What `update` needs beside gradients and state: "params", and extra arguments by name."""
        return frozenset[str]().union(*(bound.rule.needs for bound in self.rules))

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The names of all slots, in order, each once."""
        names = (name for bound in self.rules for name in bound.rule.slot_names())
        return tuple(dict.fromkeys(names))

    @property
    def runs(self) -> tuple[tuple[BoundRule, ...], ...]:
        """The rules, those that share kernels together."""
        return self._cached("runs", lambda: group_runs(self.rules))

    def _cached(self, name: Hashable, make: Callable[[], Any]) -> Any:
        if name not in self.cache:
            self.cache[name] = make()
        return self.cache[name]

    def verify(self) -> None:
        """Raise at the call where a builder returned no transformation."""
        if not isinstance(self.expansion, GradientTransformation | BoundRule | MapRules | list):
            raise GradtxError(
                f"{self.factory.__name__} returned {type(self.expansion).__name__}: return "
                f"leafwise(...), treewise(...) or chain(...)"
            )

    def item_names(self, items: Sequence[Any]) -> Sequence[Any]:
        if all(isinstance(item, GradientTransformation) for item in items):
            return member_names(items)
        return super().item_names(items)

    def way_to_read(self, name: str) -> str | None:
        leaves = jax.tree_util.tree_leaves_with_path(
            self, is_leaf=lambda one: isinstance(one, Schedule)
        )
        number = sum(key_text(path[-1]) == name for path, _ in leaves)
        if number == 0:
            return super().way_to_read(name)
        # Hyperparameters of one name have longer names there.
        return f'gradtx.hyperparams(tx)["{name}"]' if number == 1 else "gradtx.hyperparams(tx)"

    @classmethod
    def coerce(cls, value: Any, where: str) -> "GradientTransformation":
        """Anything with `init` and `update` as a member: a transformation of Optax's, too."""
        if callable(make := getattr(value, "gradient_transformation", None)):
            pair: Any = make()  # `MultiSteps`, which is a class of its own
            return as_transformation(pair)
        if callable(getattr(value, "init", None)) and callable(getattr(value, "update", None)):
            return cls(value.init, value.update)
        if isinstance(value, State):
            raise GradtxError(f"{where} is a State: pass the transformation that it belongs to")
        if isinstance(value, list | tuple):
            raise GradtxError(
                f"{where} is a {type(value).__name__}, and must be one transformation: write "
                f"chain(*members)"
            )
        if (mistake := uncalled_builder(value)) is not None:
            raise GradtxError(f"{where}: {mistake}")
        shown = "a tree of arrays" if holds_arrays(value) else repr(value)
        raise GradtxError(
            f"{where} is {shown}, which has no init and update: pass a gradient transformation"
        )


register(GradientTransformation)

GradientTransformationExtraArgs = GradientTransformation
"""Optax's name for a transformation whose `update` takes extra arguments; every one does here."""

TransformationLike = GradientTransformation | Pair
"""What a transformation may be given as; it becomes a `GradientTransformation`."""


def as_transformation(value: TransformationLike) -> GradientTransformation:
    """The value as a `GradientTransformation`, wrapped if it is another library's."""
    if isinstance(value, GradientTransformation):
        return value
    return GradientTransformation.coerce(value, "transformation")


def definition(
    build: Callable[P, Any], name: str | None = None
) -> Callable[P, GradientTransformation]:
    """Turn a function that returns a transformation into a builder of definitions.

    The arguments annotated as hyperparameters (`Hyperparam`, `NonNegative`, `Decay`, ...) or as
    `GradientTransformation` become the data of the definition; the others are static. Its name,
    repr, equality, JSON form and `replace` all follow from the call.
    """
    factory = Factory(build, GradientTransformation, name=name)

    @functools.wraps(build)
    def make(*args: P.args, **kwargs: P.kwargs) -> GradientTransformation:
        try:
            return factory(*args, **kwargs)
        except Exception as error:
            raise hide_frames(error) from error.__cause__

    builder = cast(Any, make)
    builder.factory = factory
    builder.__signature__ = LazySignature(factory.shown_signature)
    return make


def _reads_state(bound: BoundRule) -> bool:
    follows = any(isinstance(value, Schedule) for value in bound.hyperparams.values())
    return bound.rule.keeps or bound.rule.reads_step or follows


def _lay_over(leaves: Any, result: Params, new: Params, chosen: Sequence[bool]) -> Params:
    """`new` at the chosen leaves, `result` at the others; all of `new` in another structure."""
    values, treedef = flatten(new)
    others, below = flatten(result)
    if treedef != leaves.treedef:
        return new
    base = others if below == treedef else leaves.values
    each = zip(values, base, chosen, strict=True)
    return jax.tree.unflatten(treedef, [one if is_new else old for one, old, is_new in each])


def _plain_init(params: Params, *, init: Callable[..., Any]) -> object:
    return init(params)


def _plain_update(
    updates: Updates,
    state: Any,
    params: Params,
    step: Any,
    *,
    update: Callable[..., Any],
    extra: Mapping[str, Any],
) -> tuple[Any, Any]:
    return call_pair(update, updates, state, params, extra)


def _expand_plain(init: Callable[..., Any], update: Callable[..., Any]) -> BoundRule:
    """A plain pair as a member: a rule on trees whose slots are the pair's own state."""
    options = {"init": init, "update": update}
    rule = PlainRule(pair_name(init), _plain_update, _plain_init, options)
    return BoundRule((), rule, {})


class PlainRule(TreeRule):
    """Another library's pair of functions, whose slots have no names."""

    def with_storage(self, storage: Any, member: Callable[..., Any]) -> "PlainRule":
        raise GradtxError(
            f"stored: {self.name} is another library's, whose slots have no names; use gradtx's "
            f"own, or put it outside of stored"
        )

    def with_stack(self, stack: Any, member: Callable[..., Any]) -> "PlainRule":
        raise GradtxError(
            f"stacked: {self.name} is another library's, whose rules see whole arrays; use "
            f"gradtx's own, or put it outside of stacked"
        )


PLAIN = Factory(_expand_plain, GradientTransformation, name="GradientTransformation")
cast(Any, _expand_plain).factory = PLAIN

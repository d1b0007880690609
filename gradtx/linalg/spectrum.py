r"""`Spectrum`: a function of the singular values of a matrix, as data, by matrix products alone.

f(X) = Σ f(σ_i) u_i v_iᵀ   of   X = Σ σ_i u_i v_iᵀ

A spectrum is a `Definition`: it prints as its call, compares by value, is written as JSON, and its
numbers are the leaves of a pytree. A rule on matrices receives its `Form`, which chooses the
program, and its numbers as one array.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Concatenate, Literal, NamedTuple, ParamSpec, get_args

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.definition.definition import Definition, Factory, uncalled_builder
from gradtx.definition.errors import HyperparamError
from gradtx.definition.pytree import register
from gradtx.definition.schedule import Schedule, value_at
from gradtx.definition.signature import builder_of
from gradtx.definition.types import ArrayLike, Check, DTypeLike
from gradtx.linalg import newton_schulz
from gradtx.linalg.checks import matrices
from gradtx.linalg.orthogonalize import (
    EXACT,
    coefficients_in,
    exact_factor,
    normalized,
    orthogonalize,
    product_dtype,
)
from gradtx.linalg.polar_express import Triple
from gradtx.tree import casts

P = ParamSpec("P")
Norm = Literal["schatten", "spectral", "frobenius"]
"""The norm that singular values are relative to."""
NORMS = get_args(Norm)


def check_normalize(where: str, value: Any) -> None:
    if value is not None and value not in NORMS:
        raise HyperparamError(
            f"{where} = {value!r} is unknown; choose one of {', '.join(map(repr, NORMS))}"
        )


def check_steps(where: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise HyperparamError(f"{where} = {value!r} is below 1, or not whole")


Steps = Annotated[int, Check(check_steps)]
Relative = Annotated[Norm, Check(check_normalize)]


class Scaled(NamedTuple):
    """A wide matrix with singular values in [0, 1], as a spectrum receives it."""

    x: jax.Array
    gram: jax.Array
    """X Xᴴ."""
    unit: jax.Array
    """The size of 1 in X, in the units of the argument, (..., 1, 1)."""
    method: str | tuple[Triple, ...] | Triple
    """The polynomials of the orthogonal factor, for the spectra that do not have their own."""
    steps: int | None

    def number(self, value: Any, precise: bool = False) -> jax.Array:
        """A number in the precision of X, or in that of arithmetic on X."""
        dtype = casts.real_dtype(self.x.dtype) if precise else self.x.real.dtype
        return jnp.asarray(value, dtype)

    def polar(self) -> jax.Array:
        """The orthogonal factor of X, by the polynomials of the optimizer."""
        if isinstance(self.method, str) and self.method in EXACT:
            return exact_factor(self.x.astype(casts.compute_dtype(self.x.dtype)), self.method)
        triples = coefficients_in(self.method, self.steps, self.x.dtype)
        return newton_schulz.compose(self.x, self.gram, triples, "auto").astype(self.x.dtype)


class Form(NamedTuple):
    """The part of a spectrum that chooses the program: its function and its static arguments."""

    function: Callable[..., jax.Array]
    names: tuple[str, ...]
    """Its numbers by name, in the order of their array."""
    options: tuple[tuple[str, Any], ...]

    @property
    def normalize(self) -> str | None:
        return dict(self.options).get("normalize", "schatten")

    def evaluate(self, scaled: Scaled, values: Any) -> jax.Array:
        """Evaluate the spectrum on a scaled matrix; `values` has its numbers along its axis."""
        real = casts.real_dtype(scaled.x.dtype)
        numbers = {name: jnp.asarray(values[n], real) for n, name in enumerate(self.names)}
        return self.function(scaled, **numbers, **dict(self.options))

    def apply(
        self,
        x: jax.Array,
        values: Any,
        *,
        method: Any = "polar_express",
        steps: int | None = None,
        compute_dtype: DTypeLike | None = None,
        eps: ArrayLike = 1e-7,
    ) -> jax.Array:
        """Evaluate the spectrum on a matrix, or on a batch of them."""
        if not newton_schulz.is_wide(x):
            options = {"method": method, "steps": steps, "compute_dtype": compute_dtype}
            return newton_schulz.adjoint(
                self.apply(newton_schulz.adjoint(x), values, eps=eps, **options)
            )
        dtype = product_dtype(x, compute_dtype)
        precise = x.astype(casts.widest(dtype, x.dtype, jnp.float32))
        with casts.ALIKE if dtype.kind != "c" else casts.mixed_promotion():
            start, gram, unit = normalized(precise, dtype, self.normalize or "schatten", eps, 1.0)
            scaled = Scaled(start, gram, unit.real.astype(start.real.dtype), method, steps)
            return self.evaluate(scaled, values).astype(x.dtype)


class Numbers(Schedule):
    """The numbers of a spectrum at each count, as one array."""

    __slots__ = ()

    def __call__(self, count: ArrayLike) -> jax.Array:
        spectrum = self.arguments["spectrum"]
        values = [value_at(spectrum.arguments[name], count) for name in spectrum.form.names]
        return jnp.stack([jnp.asarray(value, jnp.result_type(float)) for value in values])


class Spectrum(Definition):
    """A function of singular values by matrix products alone, as data.

    f(X) = Σ f(σ_i) u_i v_iᵀ of X = Σ σ_i u_i v_iᵀ. Optimizers that orthogonalize accept one as
    `spectrum=`. A call applies it to a matrix, or to a batch of matrices (..., n, m).

    >>> import gradtx, jax.numpy as jnp
    >>> cap = gradtx.spectral_cap(2.0, normalize=None)
    >>> cap(jnp.diag(jnp.array([5.0, 1.0]))).round(3).tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    >>> gradtx.muon(0.02, spectrum=gradtx.soft_polar(0.3))
    muon(learning_rate=0.02, spectrum=soft_polar(alpha=0.3))
    """

    __slots__ = ()
    public_names: ClassVar[tuple[str, ...]] = ("__call__", "arguments", "exact")
    plural: ClassVar[str] = "spectra"
    misplaced: ClassVar[str] = "a spectrum: pass it as spectrum=..."

    @classmethod
    def coerce(cls, value: Any, where: str) -> "Spectrum":
        if (mistake := uncalled_builder(value)) is not None:
            raise HyperparamError(f"{where}: {mistake}")
        raise HyperparamError(
            f"{where} = {value!r} is not a spectrum: take polar(), soft_polar(...), "
            f"spectral_cap(...), spectral_clip(...), spectral_contraction(...), "
            f"spectral_power(...), spectral_tilt(...) or spectral_series(...)"
        )

    def verify(self) -> None:
        if self.factory.check is not None:
            args, kwargs = self.factory.arguments(self.arguments)
            self.factory.check(*args, **kwargs)

    def __call__(
        self,
        x: ArrayLike,
        *,
        method: Any = "polar_express",
        steps: int | None = None,
        compute_dtype: DTypeLike | None = None,
        eps: ArrayLike = 1e-7,
    ) -> jax.Array:
        """Apply the spectrum to a matrix: f(X) = Σ f(σ_i) u_i v_iᵀ.

        Args:
          x: X, (..., n, m), real or complex.
          method: the polynomials of the orthogonal factor, as in `orthogonalize`, for `polar`,
            `soft_polar` and `spectral_tilt`; the others have their own.
          steps: the number of these polynomials; None: that of the preset.
          compute_dtype: dtype of the products; None: X's own, float32 at least.
          eps: ε ≥ 0, keeps matrices near zero small; 10⁻⁷.
        """
        array = matrices(self.factory.__name__, x)
        values = None if self.numbers is None else self.numbers(0)
        options = {"method": method, "steps": steps, "compute_dtype": compute_dtype, "eps": eps}
        self.check_polynomials(self.factory.__name__, method, steps)
        if self.is_polar:
            return orthogonalize(array, **options)
        return self.form.apply(array, values, **options)

    def exact(self, sigma: ArrayLike) -> np.ndarray:
        """Return f(σ) in float64, the function that the products approximate.

        Args:
          sigma: singular values; relative to the norm of the matrix unless `normalize=None`.

        Raises:
          HyperparamError: f depends on all singular values of a matrix, as that of `soft_polar`.
        """
        function = getattr(self.factory, "exact", None)
        if function is None:
            raise HyperparamError(
                f"{self!r} has no function of one singular value: its result depends on all of "
                f"them; take worst_error for its orthogonal factor"
            )
        values = {name: value_at(one, 0) for name, one in self.arguments.items()}
        known = {name: values[name] for name in function.__code__.co_varnames[1:] if name in values}
        return np.asarray(function(np.asarray(sigma, np.float64), **known), np.float64)

    @property
    def form(self) -> Form:
        """The function and the static arguments."""
        if "form" not in self.cache:
            dynamic = self.factory.dynamic
            options = ((name, one) for name, one in self.arguments.items() if name not in dynamic)
            self.cache["form"] = Form(self.factory.body, tuple(dynamic), tuple(options))
        return self.cache["form"]

    @property
    def numbers(self) -> Numbers | None:
        """The numbers as a hyperparameter of a rule; None: it has none."""
        if not self.form.names:
            return None
        return Numbers.of(NUMBERS, {"spectrum": self})

    @property
    def is_polar(self) -> bool:
        """Whether it is the orthogonal factor, which `orthogonalize` computes."""
        return self.factory.__name__ == "polar"

    def check_polynomials(self, where: str, method: Any, steps: int | None) -> None:
        """Raise where polynomials are set that the spectrum does not use."""
        has_own = getattr(self.factory, "has_own", False)
        if has_own and (steps is not None or not _is_default(method)):
            raise HyperparamError(
                f"{where}: {self!r} has polynomials of its own, and would not use the ones that "
                f"are set (method = {method!r}, steps = {steps!r}): leave them out"
            )


def identity(like: jax.Array) -> jax.Array:
    """Identity matrices in the shape of others."""
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def _is_default(method: Any) -> bool:
    return isinstance(method, str) and method == "polar_express"


register(Spectrum)
register(Numbers)


def _numbers(count: Any, spectrum: Spectrum) -> Any:
    """The body of `Numbers`, which evaluates itself."""
    return Numbers.of(NUMBERS, {"spectrum": spectrum})(count)


NUMBERS = Factory(_numbers, Numbers, skip=1, name="spectrum_numbers")


def spectrum(
    exact: Callable[..., Any] | None = None,
    *,
    check: Callable[..., None] | None = None,
    has_own: bool = False,
) -> Callable[
    [Callable[Concatenate[Scaled, P], jax.Array]],
    Callable[P, Spectrum],
]:
    """Turn `function(scaled, *parameters) -> matrix` into a builder of spectra.

    Args:
      exact: f(σ, ...) in NumPy, with parameters by name; None: f depends on all singular values.
      check: receives the parameters, and may raise if they contradict each other.
      has_own: whether it has its own polynomials, in the place of those of the optimizer.
    """
    return functools.partial(_make_builder, exact, check, has_own)


class SpectrumFactory(Factory):
    """A builder of spectra, with the function of singular values that each approximates."""

    exact: Callable[..., Any] | None = None
    has_own: bool = False


def _make_builder(
    exact: Callable[..., Any] | None,
    check: Callable[..., None] | None,
    has_own: bool,
    function: Callable[..., jax.Array],
) -> Callable[..., Spectrum]:
    factory = SpectrumFactory(function, Spectrum, skip=1, check=check)
    factory.exact, factory.has_own = exact, has_own
    return builder_of(factory, function)

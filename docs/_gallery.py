"""Train every optimizer on three landscapes over 29 learning rates, and write docs/gallery.md.

`python docs/_gallery.py` trains all of them, and writes docs/_static/gallery/paths.csv, one picture
for each optimizer, the picture of all learning rates, and the lists of the page. With names,
`python docs/_gallery.py adam lion`, it trains those, and leaves the rest as it is.
"""

import csv
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _generate import is_matrix_method, optimizers

import gradtx

DOCS = Path(__file__).parent
PAGE = DOCS / "gallery.md"
PICTURES = DOCS / "_static" / "gallery"
DATA = PICTURES / "paths.csv"

STEPS = 300
TAIL = 30
"""The loss of a training is the mean over its last steps: under noise, the last one is luck."""
RATES = 10.0 ** (np.arange(-20, 9) / 4)
EARLY = 10
"""So many steps do not amplify the rounding of a compiler; a bouncing path does later on."""
TIED, EXACT = 1.05, 1e-6
"""Losses within 5 % of the best, or below a millionth of that at the start, are equally good."""


class Landscape(NamedTuple):
    """A loss of two numbers and a noise, with the point where every training starts."""

    title: str
    loss: Callable[[Any, Any], Any]
    start: tuple[float, float]
    minimum: tuple[float, float]
    window: tuple[float, float, float, float]
    """The part of the plane that a picture shows: x from, x to, y from, y to."""


def rosenbrock(w: Any, noise: Any) -> Any:
    """(1 − x)² + 100 (y − x²)²: a curved valley, flat along and steep across."""
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


def rastrigin(w: Any, noise: Any) -> Any:
    """20 + x² − 10 cos 2πx + y² − 10 cos 2πy: a local minimum near every integer point."""
    return 20 + sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x) for x in (w[0], w[1]))


def quadratic(w: Any, noise: Any) -> Any:
    """(a² + 20 b²) / 2 at (a, b) = w − 0.2 noise: each batch has its minimum elsewhere."""
    return ((w[0] - 0.2 * noise[0]) ** 2 + 20 * (w[1] - 0.2 * noise[1]) ** 2) / 2


LANDSCAPES = (
    Landscape("Rosenbrock", rosenbrock, (-1.2, 1.0), (1.0, 1.0), (-1.8, 1.8, -0.8, 2.2)),
    Landscape("Rastrigin", rastrigin, (-2.2, 3.3), (0.0, 0.0), (-4.0, 2.0, -1.4, 4.2)),
    Landscape("noisy quadratic", quadratic, (-4.0, 1.5), (0.0, 0.0), (-4.6, 1.8, -2.4, 2.4)),
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "noisy_sgd": {"learning_rate": 1.0, "key": 0},
    "dpsgd": {"learning_rate": 1.0, "l2_norm_clip": 1.0, "noise_multiplier": 0.1, "key": 0},
}
"""The calls that are not `name(1.0)`."""
LEFT_OUT = {
    "muon_clip": "its clip receives the attention logits of a transformer",
}


# Which optimizers


def left_out() -> dict[str, str]:
    """The optimizers that have no picture, with the reason."""
    vectors = {
        name: "it treats a matrix with one column as a vector, which gets Adam's step"
        for name in optimizers()
        if is_matrix_method(name) and name not in LEFT_OUT and treats_column_as_vector(name)
    }
    return {**LEFT_OUT, **vectors}


def treats_column_as_vector(name: str) -> bool:
    """Whether the slots of a matrix with one column are those of a vector."""
    tx, shapes = make(name), ((2, 1), (2,))
    column, vector = (
        set(gradtx.flatten_state(tx.init({"kernel": jnp.ones(shape)}))) for shape in shapes
    )
    return column == vector and not any("left" in slot or "right" in slot for slot in column)


def names() -> list[str]:
    """The optimizers that have a picture, all others of the library apart from `left_out`."""
    without = left_out()
    return [name for name in optimizers() if name not in without]


def make(name: str) -> gradtx.GradientTransformation:
    """The optimizer at its defaults, with a rate that `train` replaces."""
    maker = getattr(gradtx, name)
    if name in ARGUMENTS:
        return maker(**ARGUMENTS[name])
    return maker(**{next(iter(inspect.signature(maker).parameters)): 1.0})


def rate_name(tx: gradtx.GradientTransformation) -> str:
    """The hyperparameter that is varied."""
    return "max_learning_rate" if "max_learning_rate" in gradtx.hyperparams(tx) else "learning_rate"


# Training


def train_all(name: str) -> np.ndarray:
    """The points of 87 trainings, one program: (landscape, rate, step, coordinate), in float64."""
    with jax.enable_x64(True):
        tx = make(name)
        numbers, starts = jnp.arange(3), jnp.array([land.start for land in LANDSCAPES])
        by_rate = jax.vmap(
            lambda number, start, rate: train(name, tx, number, start, rate),
            in_axes=(None, None, 0),
        )
        by_landscape = jax.vmap(by_rate, in_axes=(0, 0, None))
        return np.asarray(jax.jit(by_landscape)(numbers, starts, jnp.asarray(RATES)))


def train(name: str, tx: Any, number: Any, start: Any, rate: Any) -> jax.Array:
    """The points that one training visits; `eval_params` where those differ from the trained."""
    tx = gradtx.replace(tx, **{rate_name(tx): rate})
    params = {"kernel": start[:, None] if is_matrix_method(name) else start}

    def step(carry: Any, noise: Any) -> Any:
        params, state = carry

        def loss(params: Any) -> Any:
            losses = [land.loss for land in LANDSCAPES]
            return jax.lax.switch(number, losses, params["kernel"].ravel(), noise)

        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss, "obj_fn": loss}
        grads = jax.tree.map(lambda leaf: leaf[None], grad) if name == "dpsgd" else grad
        updates, state = tx.update(grads, state, params, **extra)  # dpsgd: one for each example
        params = gradtx.apply_updates(params, updates)
        return (params, state), gradtx.eval_params(tx, state, params)["kernel"].ravel()

    noise = jax.random.normal(jax.random.key(1), (STEPS, 2))
    _, points = jax.lax.scan(step, (params, tx.init(params)), noise)
    return jnp.concatenate([start[None], points])


# Rows of the data


class Row(NamedTuple):
    """One optimizer on one landscape."""

    optimizer: str
    landscape: str
    rate: str
    """The learning rate of the picture, with the lowest loss."""
    early_x: str
    early_y: str
    x: str
    y: str
    loss: str
    """At that rate the point after ten steps, the last point, and the loss of the last steps."""
    outcomes: str
    """One letter for each learning rate: see `outcome`."""


def measure(name: str) -> tuple[list[Row], list[np.ndarray]]:
    """The rows of one optimizer, and its path on each landscape at the best rate."""
    rows, paths = list[Row](), list[np.ndarray]()
    for land, points in zip(LANDSCAPES, train_all(name), strict=True):
        start, losses = tail_losses(land, points)
        best = best_rate(losses, start, stays_in_view(land, points))
        path = points[best]
        early_x, early_y = (f"{x:.4f}" for x in path[EARLY])
        x, y = (re.sub("^-(0.00)$", r"\1", f"{x:.2f}") for x in path[-1])
        outcomes = "".join(outcome(loss, start) for loss in losses)
        rate, loss = number(RATES[best]), f"{losses[best]:.1e}"
        rows.append(Row(name, land.title, rate, early_x, early_y, x, y, loss, outcomes))
        paths.append(path)
    return rows, paths


def tail_losses(land: Landscape, points: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss without noise: at the start, and over the last steps of each rate."""
    with np.errstate(all="ignore"), jax.enable_x64(True):
        tail = np.moveaxis(points[:, -TAIL:], -1, 0)
        losses = np.mean(np.asarray(land.loss(tail, np.zeros(2))), axis=-1)
        start = float(land.loss(np.array(land.start), np.zeros(2)))
    return start, np.where(np.isfinite(losses), losses, np.inf)


def stays_in_view(land: Landscape, points: np.ndarray) -> np.ndarray:
    """For each rate, whether its whole path lies in the window of the picture."""
    left, right, low, high = land.window
    x, y = np.moveaxis(points, -1, 0)
    return np.all((left < x) & (x < right) & (low < y) & (y < high), axis=-1)


def best_rate(losses: np.ndarray, start: float, visible: np.ndarray) -> int:
    """The rate with the lowest loss of those whose path is visible, the middle one of equals."""
    losses = np.where(visible, losses, np.inf) if visible.any() else losses
    good = np.flatnonzero(losses <= max(TIED * losses.min(), EXACT * start))
    return int(good[(len(good) - 1) // 2])


def number(rate: float) -> str:
    """Two digits, and 100 in place of 1e+02."""
    return f"{rate:.2g}".replace("1e+02", "100")


def outcome(loss: float, start: float) -> str:
    """x: diverged, the loss ends higher than it began or is not finite; s: above half of that at
    the start; d: below half; m: below a hundredth, near the minimum.
    """
    ratio = loss / start
    return "x" if not ratio <= 1 else "s" if ratio > 0.5 else "d" if ratio > 0.01 else "m"


def read() -> dict[str, list[Row]]:
    """The committed rows, by optimizer."""
    rows = dict[str, list[Row]]()
    with DATA.open(encoding="utf-8", newline="") as file:
        for record in csv.DictReader(file):
            rows.setdefault(record["optimizer"], []).append(Row(**record))
    return rows


def write(rows: dict[str, list[Row]]) -> None:
    with DATA.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(row for group in rows.values() for row in group)


# The page


def describe(row: Row) -> str:
    """One sentence that says where a path ends."""
    letter = row.outcomes[rate_index(row)]
    where = {
        "m": "reaches the minimum",
        "d": f"ends at ({row.x}, {row.y}), loss {float(row.loss):.2g}",
        "s": f"is still high at ({row.x}, {row.y}), loss {float(row.loss):.2g}",
        "x": f"never descends, and ends at ({row.x}, {row.y})",
    }[letter]
    return f"{row.landscape} at rate {row.rate}: {where}"


def rate_index(row: Row) -> int:
    """The position of a picture's rate in the grid."""
    return int(np.argmin(abs(np.log(RATES / float(row.rate)))))


def diverges_from(row: Row) -> str:
    """The lowest rate from which on every rate of the grid diverges."""
    count = len(row.outcomes.rstrip("x"))
    return number(RATES[count]) if count < len(RATES) else "never"


def cards(rows: dict[str, list[Row]]) -> Iterator[str]:
    """One picture for each optimizer, two side by side where the screen has room."""
    columns = "repeat(auto-fill, minmax(min(100%, 20rem), 1fr))"
    yield f'<div style="display: grid; gap: 0 1.5rem; grid-template-columns: {columns};">\n'
    for name, group in rows.items():
        rates = " · ".join(row.rate for row in group)
        alt = "; ".join(describe(row) for row in group)
        yield f"<div>\n\n[`{name}`](#gradtx.{name}) at {rates}\n"
        yield f"![{name}. {alt}](_static/gallery/{name}.png)\n\n</div>"
    yield "</div>"


def chart(rows: dict[str, list[Row]]) -> Iterator[str]:
    """The picture of all rates, with a text that says what it shows."""
    limits = {name: diverges_from(group[0]) for name, group in rows.items()}
    never = [name for name, limit in limits.items() if limit == "never"]
    some = [f"{name} from {limits[name]} on" for name in ("sgd", "muon", "adam")]
    yield (
        "![A row of cells for each optimizer and landscape, rates from 1e-5 to 100. Most begin "
        "grey, where the loss hardly fell, turn light blue, dark blue near the minimum, and orange "
        f"where trainings diverge. On Rosenbrock {', '.join(some)}; {', '.join(never)} end without "
        "orange.](_static/gallery/rates.png)"
    )


def table(rows: dict[str, list[Row]]) -> Iterator[str]:
    """The rate of each picture, and where divergence begins."""
    yield "| optimizer | " + " | ".join(land.title for land in LANDSCAPES) + " |"
    yield "|---|---|---|---|"
    for name, group in rows.items():
        cells = " | ".join(f"{row.rate}; {diverges_from(row)}" for row in group)
        yield f"| [`{name}`](#gradtx.{name}) | {cells} |"


def without() -> Iterator[str]:
    """The optimizers that have no picture."""
    for name, reason in left_out().items():
        yield f"- [`{name}`](#gradtx.{name}): {reason}."


def fill(text: str, rows: dict[str, list[Row]]) -> str:
    """The page with its lists written anew, each between its two comments."""
    parts = {"cards": cards(rows), "chart": chart(rows), "table": table(rows), "without": without()}
    for key, lines in parts.items():
        body = f"<!-- gallery: {key} -->\n\n" + "\n".join(lines) + "\n\n<!-- end gallery -->"
        pattern = rf"<!-- gallery: {key} -->\n.*?<!-- end gallery -->"
        text = re.sub(pattern, lambda match, body=body: body, text, flags=re.DOTALL)
    return text


def main(only: list[str]) -> None:
    import _gallery_pictures

    rows, paths = read() if only else {}, dict[str, list[np.ndarray]]()
    for name in only or names():
        rows[name], paths[name] = measure(name)
        print(*(",".join(row) for row in rows[name]), sep="\n", flush=True)
    rows = {name: rows[name] for name in names() if name in rows}
    write(rows)
    _gallery_pictures.draw_all(LANDSCAPES, paths, rows, RATES, PICTURES)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

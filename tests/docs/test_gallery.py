"""docs/gallery.md shows every optimizer, and its data and lists are those of the code."""

import datetime
import runpy
import sys
import types

import numpy as np

from tests.support.places import ROOT

DOCS = ROOT / "docs"
PATHS = [*sys.path]
generate = types.SimpleNamespace(**runpy.run_path(str(DOCS / "_generate.py")))
gallery = types.SimpleNamespace(**runpy.run_path(str(DOCS / "_gallery.py")))
pictures = types.SimpleNamespace(**runpy.run_path(str(DOCS / "_gallery_pictures.py")))
sys.path[:] = PATHS  # a script puts its folder there, and other tests have a `_plots` of their own

PNG = b"\x89PNG\r\n\x1a\n"
DAY = datetime.datetime.now(datetime.UTC).timetuple().tm_yday
COMMITTED = gallery.read()
PERIOD = 20
"""Three or four optimizers a day; each of them at least every twenty days."""
TODAY = list(COMMITTED)[DAY % PERIOD :: PERIOD]


def test_every_optimizer_has_a_picture_or_a_reason() -> None:
    reasons = gallery.left_out()
    assert list(COMMITTED) == gallery.names(), "run `python docs/_gallery.py NAME`"
    assert sorted([*COMMITTED, *reasons]) == generate.optimizers()
    assert len(reasons) <= 5 and all(reasons.values())
    files = {path.stem: path for path in gallery.PICTURES.glob("*.png")}
    assert {*files} == {*COMMITTED, "rates"}
    assert all(path.read_bytes().startswith(PNG) for path in files.values())


def test_the_lists_of_the_page_are_those_of_the_data() -> None:
    text = gallery.PAGE.read_text(encoding="utf-8")
    assert gallery.fill(text, COMMITTED) == text, "run `python docs/_gallery.py`"
    assert text.count("](_static/gallery/") == len(COMMITTED) + 1


def test_the_sentences_about_divergence_are_those_of_the_data() -> None:
    sgd, adam = COMMITTED["sgd"][0], COMMITTED["adam"][0]
    assert (sgd.rate, gallery.diverges_from(sgd)) == ("0.0032", "0.01")
    assert (adam.rate, gallery.diverges_from(adam)) == ("0.56", "18")


def test_the_data_are_those_of_a_fresh_run() -> None:
    for name in TODAY:
        check(name)


def check(name: str) -> None:
    """The first steps to all digits that the file has. Later, paths that bounce amplify the
    rounding of another compiler: of the 87 outcomes, those at the edge of bouncing may differ.
    """
    changed = 0
    for land, points, row in zip(
        gallery.LANDSCAPES, gallery.train_all(name), COMMITTED[name], strict=True
    ):
        path, place = points[gallery.rate_index(row)], f"{name}, {land.title}"
        early = float(row.early_x), float(row.early_y)  # rounded to 1e-4
        np.testing.assert_allclose(path[gallery.EARLY], early, atol=6e-5, err_msg=place)
        start, losses = gallery.tail_losses(land, points)
        outcomes = "".join(gallery.outcome(loss, start) for loss in losses)
        changed += sum(map(str.__ne__, outcomes, row.outcomes))
        # Convex: no path bounces at its best rate. Rounding decides where a line search stops.
        if land.title == "noisy quadratic" and name != "lbfgs":
            end = float(row.x), float(row.y)
            np.testing.assert_allclose(path[-1], end, atol=0.011, err_msg=place)
    assert changed <= 12, f"{name}: {changed} of 87 outcomes"


def test_an_outcome_is_a_share_of_the_loss_at_the_start() -> None:
    losses = (0.9, 50.0, 51.0, 100.0, 101.0, np.inf, np.nan)
    assert "".join(gallery.outcome(loss, 100.0) for loss in losses) == "mdssxxx"


def test_the_best_rate_is_visible_and_the_middle_of_equals() -> None:
    losses, visible = np.array([5.0, 1.0, 1.01, 1.02, 0.1]), np.array([1, 1, 1, 1, 0], bool)
    assert gallery.best_rate(losses, 10.0, visible) == 2
    assert gallery.best_rate(losses, 10.0, np.zeros(5, bool)) == 4


def test_a_picture_shows_the_path_between_its_start_and_its_end() -> None:
    lands = gallery.LANDSCAPES
    paths = [np.linspace(land.start, land.minimum, 5) for land in lands]
    figure = pictures.draw_paths(lands, [pictures.surface(land) for land in lands], paths)
    for axes, land, path in zip(figure.axes, lands, paths, strict=True):
        line, start, minimum, end = axes.lines
        np.testing.assert_allclose(line.get_xydata(), path)
        for mark, point in ((start, land.start), (minimum, land.minimum), (end, path[-1])):
            np.testing.assert_allclose(mark.get_xydata(), [point])
        assert axes.get_xlim() + axes.get_ylim() == land.window

"""The module for authors: it names and documents its parts, and docs import from nowhere deeper."""

import re
import types
from pathlib import Path
from typing import get_origin

import pytest

import gradtx
from gradtx import authoring
from tests.support.places import ROOT

NAMES = sorted(
    name
    for name, value in vars(authoring).items()
    if not name.startswith("_") and not isinstance(value, types.ModuleType)
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLIC = {"authoring", "linalg", "sharding", "testing"}
"""The modules of gradtx from which a page may import."""


def test_it_has_what_the_tutorial_builds_with() -> None:
    assert {"zeros", "average", "Member", "where_due", "sum_scalars", "Precise"} <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_documented(name: str) -> None:
    """An alias of a type has no docstring of its own: the module's says what it is for."""
    value = getattr(authoring, name)
    assert f"`{name}`" in (authoring.__doc__ or ""), f"the module docstring does not name {name}"
    is_alias = get_origin(value) is not None or name in ("Precise", "Squares")
    assert is_alias or (value.__doc__ or "").strip(), f"{name} has no docstring"


def test_no_name_has_two_homes() -> None:
    assert not [name for name in NAMES if hasattr(gradtx, name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_import_public_modules_only(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert {*re.findall(r"(?:from|import) gradtx\.(\w+)", text)} <= PUBLIC

"""The metadata that a package index shows."""

import importlib.metadata
import re
from typing import Any

from tests.support.places import ROOT

METADATA: Any = importlib.metadata.metadata("gradtx")  # typeshed lacks `get_payload`


def test_pictures_and_links_of_the_readme_lead_to_the_repository() -> None:
    text = METADATA.get_payload()
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets and all(target.startswith(("https://", "#")) for target in targets)
    pictures = re.findall(r"!\[[^\]]*\]\((\S+?)\)", text)
    assert pictures and all("raw.githubusercontent.com" in picture for picture in pictures)


def test_each_target_is_a_file_of_the_project() -> None:
    text = METADATA.get_payload()
    for path in re.findall(r"gradtx/gradtx/(?:blob/)?main/([^)#\s]+)", text):
        assert (ROOT / path).exists(), path


def test_the_urls_of_the_project() -> None:
    urls = dict(line.split(", ") for line in METADATA.get_all("Project-URL") or [])
    assert set(urls) == {"Repository", "Documentation", "Changelog", "Issues"}

"""docs/accepted.md says what the service does, and has a row for every reason."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator

import pytest
from PIL import features

from core.errors import FaceTurnedAway, PhotoRefused, UploadRefused
from deploy.local import ROOT
from tests.docs import accepted

PAGE = ROOT / "docs" / "accepted.md"
NOT_DRAWN = {FaceTurnedAway.code}
"""What the drawn face cannot do."""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
@pytest.mark.skipif(importlib.util.find_spec("pi_heif") is None, reason="there is no pi-heif")
def test_the_page_is_what_is_answered():
    assert PAGE.read_text() == accepted.accepted(), "docs/accepted.md is out of date: make docs"


def test_it_has_every_reason_against_a_photo():
    named = set(re.findall(r"`([a-z-]+)`", PAGE.read_text()))
    kinds = [*leaves(PhotoRefused), *leaves(UploadRefused)]
    assert {kind.code for kind in kinds} - named - NOT_DRAWN == set()


def test_it_has_every_warning_about_a_photo():
    source = "".join((ROOT / "core" / "photos" / name).read_text() for name in ("check.py", "records.py"))
    warnings = set(re.findall(r'PhotoWarning\("([a-z-]+)"', source)) - {"unsure-same-person"}
    warnings |= {"eyes-covered", "mouth-covered"}
    assert len(warnings) > 3
    assert [warning for warning in sorted(warnings) if f"`{warning}`" not in PAGE.read_text()] == []


def leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    """The kinds of an error that have no kinds of their own."""
    for each in kind.__subclasses__():
        yield from leaves(each)
    if not kind.__subclasses__():
        yield kind

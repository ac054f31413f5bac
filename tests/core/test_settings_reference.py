from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import Settings
from core.settings_reference import main, settings_reference

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "settings.md"


def test_the_list_of_settings_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == settings_reference(), "docs/settings.md is out of date: make docs"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_does(name: str) -> None:
    description = Settings.model_fields[name].description or ""
    assert description.endswith(".")
    assert f"| `HDB_{name.upper()}` | " in settings_reference()


def test_it_is_written_to_the_file_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "settings.md")]) == 0
    assert (tmp_path / "settings.md").read_text() == settings_reference()
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err

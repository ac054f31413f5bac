from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import BundleError, SettingsError
from core.settings import Settings
from worker.engine import load_engine
from worker.testing import FakeEngine, FakeScript


def test_the_settings_choose_the_engine(tmp_path: Path) -> None:
    assert isinstance(load_engine(Settings(engine="worker.testing:FakeEngine", data_dir=tmp_path)), FakeEngine)


@pytest.mark.parametrize("name", ["", "worker.testing", "worker.testing:Nothing", "no.such.module:Engine"])
def test_an_engine_that_does_not_exist_is_a_wrong_setting(name: str) -> None:
    with pytest.raises(SettingsError, match="engine"):
        load_engine(Settings(engine=name))


def test_a_bundle_that_does_not_load_says_so(tmp_path: Path) -> None:
    (tmp_path / "fake-engine.json").write_text(FakeScript(refuse_to_load=True).model_dump_json())
    with pytest.raises(BundleError):
        load_engine(Settings(engine="worker.testing:FakeEngine", data_dir=tmp_path))


def test_the_parent_imports_no_torch() -> None:
    code = "import sys, worker.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_settings_are_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDB_REDIS_ULR", "1")
    ran = subprocess.run([sys.executable, "-m", "worker"], check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "HDB_REDIS_ULR" in ran.stderr
    assert "Traceback" not in ran.stderr

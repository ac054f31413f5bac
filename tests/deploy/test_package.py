"""`pip install .`: one package, which requires httpx and pydantic only and works beside another `api` and `core`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import hyperdreambooth

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "api" / "client" / "hyperdreambooth"
INFO = f"hyperdreambooth-{hyperdreambooth.__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture
def installed(wheel: zipfile.ZipFile, tmp_path: Path) -> str:
    """A PYTHONPATH: a project with an `api` and a `core` of its own, the wheel, and what it requires."""
    project, installed, required = tmp_path / "project", tmp_path / "installed", tmp_path / "required"
    for name in ("api", "core"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("MINE = True\n")
    wheel.extractall(installed)
    required.mkdir()
    for place in set(_required_files("httpx", set())) | set(_required_files("pydantic", set())):
        (required / place.name).symlink_to(place)
    return ":".join(map(str, (project, installed, required)))


def _required_files(name: str, seen: set[str]) -> Iterator[Path]:
    """The top-level folders and modules of a distribution and of all that it requires."""
    if name in seen:
        return
    seen.add(name)
    found = distribution(name)
    for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
        yield Path(str(found.locate_file(top)))
    for requirement in map(Requirement, found.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _required_files(requirement.name, seen)


def run(installed: str, *arguments: str) -> str:
    """What Python prints, with nothing else on its path (-S: no site-packages)."""
    command = [sys.executable, "-S", *arguments]
    project, environ = installed.partition(":")[0], {"PYTHONPATH": installed}
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_one_package(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {name.partition("/")[0] for name in names} == {"hyperdreambooth", INFO}
    sources = {f"hyperdreambooth/{file.relative_to(SOURCE)}" for file in SOURCE.rglob("*.py")}
    assert {name for name in names if not name.startswith(INFO)} == sources | {"hyperdreambooth/py.typed"}
    assert sum(each.file_size for each in wheel.infolist()) < 500_000


def test_without_an_extra_it_requires_httpx_and_pydantic_only(wheel: zipfile.ZipFile) -> None:
    metadata = message_from_string(wheel.read(f"{INFO}/METADATA").decode())
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    always = {each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})}
    assert always == {"httpx", "pydantic"}
    assert {"server", "worker", "train", "dev"} <= set(metadata.get_all("Provides-Extra", []))
    assert "hdb = hyperdreambooth.cli.program:main" in wheel.read(f"{INFO}/entry_points.txt").decode()


def test_it_works_beside_an_api_and_a_core_of_the_project(installed: str) -> None:
    program = (
        "import api, core, sys; from hyperdreambooth import AsyncClient, Client, JobFailed, Problem, verify_webhook;"
        "assert api.MINE and core.MINE;"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in ('api', 'core', 'worker')))"
    )
    assert run(installed, "-c", program) == "api core\n"


def test_the_command_works_there(installed: str) -> None:
    assert run(installed, "-m", "hyperdreambooth.cli", "--help").startswith("usage: hdb")
    assert run(installed, "-m", "hyperdreambooth.cli", "--version") == f"{hyperdreambooth.__version__}\n"


def test_keys_are_not_looked_for_in_the_projects_own_api(installed: str) -> None:
    program = "from hyperdreambooth.cli.program import main; print(main(['keys', 'list']))"
    assert run(installed, "-c", program) == "1\n"

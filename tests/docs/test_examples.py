"""The examples of the documents work as pasted, against the whole service (with the fake engine in its worker)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.server.testing import as_file, drawn_face
from deploy.local import ROOT, LocalService
from tests.harness import FAKE

pytestmark = pytest.mark.process
ADDRESS = "http://127.0.0.1:8000"


def blocks(document: str, language: str) -> list[str]:
    """The examples in one language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    with LocalService(tmp_path_factory.mktemp("service"), environ=FAKE) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, and `hdb` on the path."""
    for name, side in (("me.jpg", 400), ("two.jpg", 480)):
        (tmp_path / name).write_bytes(as_file(drawn_face(side)))
    hdb = tmp_path / "bin" / "hdb"
    hdb.parent.mkdir()
    hdb.write_text(f'#!/bin/sh\nexec {sys.executable} -m hyperdreambooth.cli "$@"\n')
    hdb.chmod(0o755)
    return tmp_path


def run(command: list[str], program: str, folder: Path, service: LocalService) -> str:
    """Run it as if pasted, but with this service's address; returns its output."""
    environ = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "api" / "client"))),
        "HDB_URL": service.url,
    }
    program = program.replace(ADDRESS, service.url)
    done = subprocess.run(
        [*command, program], cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("document", ["README.md", "docs/cli.md"])
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_what_is_for_a_shell(document, service, folder):
    run(["bash", "-euo", "pipefail", "-c"], "\n".join(blocks(document, "bash")), folder, service)
    pictures = list(folder.rglob("*.png"))
    assert folder / "out" in {file.parent for file in pictures}
    for file in pictures:
        assert file.read_bytes()[1:4] == b"PNG", file
    assert (folder / "sketch.png").is_file() == (document == "README.md")


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_what_is_for_python(document, service, folder):
    printed = run([sys.executable, "-W", "error", "-c"], "\n".join(blocks(document, "python")), folder, service)
    assert "succeeded" in printed
    assert list(folder.glob("*.png"))


def test_afterwards_no_subject_is_left(service):
    """Every document ends with deleting what it made."""
    left = run([sys.executable, "-m", "hyperdreambooth.cli"], "subjects", service.folder, service)
    assert left.splitlines()[1:] == []

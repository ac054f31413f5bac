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
from PIL import Image

from api.server.testing import as_file, drawn_face
from deploy.local import ROOT, LocalService
from tests.harness import FAKE

pytestmark = pytest.mark.process
ADDRESS = "http://127.0.0.1:8000"
INTERACTIVE = {"bash": ["--norc", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}
"""Shells, and what makes them take lines as if typed, without anyone's configuration."""
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"there is no {shell} on this machine")


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "core" / "lab" / "training" / "README.md"]


def blocks(document: str, language: str) -> list[str]:
    """The examples in one language, in their order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


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


def paste(shell: str, program: str, folder: Path, service: LocalService) -> str:
    """What an interactive shell prints when these lines are pasted into it, with this service's address."""
    command = [shell, *INTERACTIVE[shell]]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ_of(folder, service),
        input=program.replace(ADDRESS, service.url) + "\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    return done.stdout


def run(command: list[str], program: str, folder: Path, service: LocalService) -> str:
    """Run it as a program, with this service's address; returns its output."""
    program = program.replace(ADDRESS, service.url)
    environ = environ_of(folder, service)
    done = subprocess.run(
        [*command, program], cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environ_of(folder: Path, service: LocalService) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "api" / "client"))),
        "HDB_URL": service.url,
    }


@pytest.mark.parametrize("document", ["README.md", "docs/cli.md"])
@needs_curl
def test_every_line_for_a_shell_succeeds(document, service, folder):
    run(["bash", "-euo", "pipefail", "-c"], "\n".join(blocks(document, "bash")), folder, service)
    assert_pictures(document, folder)


@pytest.mark.parametrize(
    ("document", "shell"),
    [
        *(pytest.param("README.md", shell, marks=needs(shell)) for shell in INTERACTIVE),
        pytest.param("docs/cli.md", "fish", marks=needs("fish")),
    ],
)
@needs_curl
def test_what_is_pasted_into_a_shell_ends_with_a_picture(document, shell, service, folder):
    printed = paste(shell, "\n".join(blocks(document, "bash")), folder, service)
    assert_pictures(document, folder)
    assert not re.search(r"not found|[Uu]nknown command|syntax error|no matches|problem\+json|\"code\"", printed), (
        printed
    )


@pytest.mark.parametrize(
    "shell", [pytest.param("bash", marks=needs("bash")), pytest.param("fish", marks=needs("fish"))]
)
@needs_curl
def test_what_is_pasted_with_a_photo_of_no_one_prints_the_problem(shell, service, folder):
    (folder / "me.jpg").write_bytes(as_file(Image.new("RGB", (300, 200), "white")))
    by_curl, by_hdb = blocks("README.md", "bash")
    assert '"code":"no-face"' in paste(shell, by_curl, folder, service)
    assert "No face was found" in paste(shell, by_hdb, folder, service)
    assert not list(folder.rglob("*.png"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_for_a_shell_can_be_pasted(page):
    """No prompt before them, no comment behind them (in zsh its words are arguments), no name that is a command."""
    name = str(page.relative_to(ROOT))
    for line in "\n".join(
        text for language in ("bash", "sh", "console", "") for text in blocks(name, language)
    ).splitlines():
        assert not re.match(r"\s*[$%>#] ", line), line
        assert not re.search(r"\s#\s", line), line
        defined = re.match(r"\s*(?:function\s+|alias\s+|export\s+)?([A-Za-z_]\w*)(?:\s*\(\)|=\S)", line)
        assert defined is None or defined[1].isupper(), f"{defined[1]} may be a command or a shell's own variable"


def assert_pictures(document: str, folder: Path) -> None:
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

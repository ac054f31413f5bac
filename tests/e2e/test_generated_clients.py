"""Clients that two generators make of the OpenAPI document, used as their users do, against the running service."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from api.server.testing import as_file, drawn_face
from deploy.local import LocalService

pytestmark = [pytest.mark.process, pytest.mark.slow]
PROGRAMS = Path(__file__).parent / "generated"
NODE = (20, 19)
PACKAGES = ("@hey-api/openapi-ts@0.95.0", "typescript@5.9.3", "@types/node@20.19.27")
MULTIPLE_KINDS = "Unsupported content type application/(jsonl|x-ndjson)"
"""The lines of a batch as JSONL, beside its JSON, are all that openapi-python-client leaves out."""


def run(*command: str | Path, folder: Path, **environ: str) -> str:
    """The output of a program that has to succeed."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, service: LocalService) -> Path:
    """With the service's document, a photo, and a place for pictures."""
    (tmp_path / "openapi.json").write_text(httpx.get(f"{service.url}/openapi.json").text)
    (tmp_path / "me.jpg").write_bytes(as_file(drawn_face(400)))
    (tmp_path / "pictures").mkdir()
    return tmp_path


def operations(folder: Path) -> list[str]:
    paths = json.loads((folder / "openapi.json").read_text())["paths"]
    return [operation["operationId"] for methods in paths.values() for operation in methods.values()]


def test_python(folder, service):
    pytest.importorskip("openapi_python_client")
    (folder / "config.yml").write_text("post_hooks: []\n")
    generate = [sys.executable, "-m", "openapi_python_client", "generate", "--meta=none", "--output-path=made"]
    said = run(*generate, "--path=openapi.json", "--config=config.yml", folder=folder)
    complaints = re.findall(r"^(?:Unsupported|Unable|Cannot|Invalid).*", said, flags=re.MULTILINE)
    assert [each for each in complaints if not re.match(MULTIPLE_KINDS, each)] == []
    made = {file.stem for file in (folder / "made" / "api").glob("*/*.py")}
    assert set(operations(folder)) <= made
    program = PROGRAMS / "use_python.py"
    run(sys.executable, program, service.url, "me.jpg", "pictures", folder=folder, PYTHONPATH=str(folder))
    assert len(list((folder / "pictures").glob("*.png"))) == 3


@pytest.fixture
def npm(folder: Path) -> Path:
    """A folder where the generator and the compiler are installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are not installed")
    version = tuple(map(int, run(node, "--version", folder=folder).strip().lstrip("v").split(".")))
    if version[:2] < NODE:
        pytest.skip(f"the generator needs node {NODE[0]}.{NODE[1]}, and this is {'.'.join(map(str, version))}")
    (folder / "package.json").write_text('{"private": true}')
    quietly = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
    command = [npm, "install", *quietly, *PACKAGES]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install {' and '.join(PACKAGES)}: {done.stderr[-200:]}")
    return folder / "node_modules" / ".bin"


def test_typescript(folder, service, npm):
    run(npm / "openapi-ts", "--input=openapi.json", "--output=made", "--client=@hey-api/client-fetch", folder=folder)
    made = (folder / "made" / "sdk.gen.ts").read_text()
    methods = [re.sub("_(.)", lambda found: found[1].upper(), name) for name in operations(folder)]
    assert [name for name in methods if f"export const {name} = " not in made] == []
    shutil.copy(PROGRAMS / "use_typescript.ts", folder)
    library = "es2023,dom,dom.iterable,dom.asynciterable"
    options = ["--strict", "--skipLibCheck", "--target", "es2022", "--lib", library, "--module", "commonjs"]
    run(npm / "tsc", *options, "--types", "node", "use_typescript.ts", folder=folder)
    run("node", "use_typescript.js", service.url, "me.jpg", "pictures", folder=folder)
    assert len(list((folder / "pictures").glob("*.png"))) == 3

"""The studio's build (`make studio`), and whether what is committed is what its sources give (`make check`).

python -m deploy.studio            build: types of the OpenAPI document, then scripts and styles
python -m deploy.studio --check    1 when that would change anything; 0 with the reason where there is no Node

Node is needed for these two only: what is committed is served as it is.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from api.server.app import create_app
from core.settings import Settings
from deploy.local import ROOT

SOURCES = ROOT / "api" / "studio"
BUILT = ROOT / "api" / "server" / "pages" / "studio"
TYPES = SOURCES / "src" / "api" / "schema.d.ts"
LEAST_NODE = (20, 19)


class NoNode(Exception):
    """There is no Node here that can build the studio, or its packages cannot be had."""


def build(sources: Path, built: Path) -> None:
    """Write the types, check the sources against them, and build into `built`. Raises NoNode, CalledProcessError."""
    if not (sources / "node_modules" / "vite").is_dir():
        _npm(sources, "ci", "--no-audit", "--no-fund", "--ignore-scripts", fault=NoNode("npm ci: no packages"))
    (sources / ".openapi.json").write_text(json.dumps(create_app(Settings()).openapi()))
    _npm(sources, "run", "types")
    _npm(sources, "run", "check")
    _npm(sources, "run", "build", environ={"STUDIO_OUT": str(built)})


def differences(sources: Path = SOURCES, built: Path = BUILT) -> list[str]:
    """The built files and types that the sources would change. Raises NoNode, CalledProcessError."""
    find_node()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "api" / "studio"
        shutil.copytree(sources, copy, symlinks=True)  # with its packages where they are installed
        again = Path(folder) / "built"
        build(copy, again)
        types = copy / TYPES.relative_to(sources)
        changed = [] if filecmp.cmp(types, TYPES, shallow=False) else [str(TYPES.relative_to(ROOT))]
        return changed + _unlike(built, again)


def find_node() -> str:
    """The version of Node here. Raises NoNode."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise NoNode("there is no node or no npm on this machine")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(int(part) for part in version.removeprefix("v").split(".")[:2]) < LEAST_NODE:
        raise NoNode(f"node {version} is older than {'.'.join(map(str, LEAST_NODE))}")
    return version


def _unlike(one: Path, other: Path) -> list[str]:
    files = {path.relative_to(folder) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    return sorted(str(file) for file in files if not _same(one / file, other / file))


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _npm(folder: Path, *arguments: str, environ: dict[str, str] | None = None, fault: Exception | None = None) -> None:
    command = [str(shutil.which("npm")), *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise fault or subprocess.CalledProcessError(done.returncode, command)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="deploy.studio", description="Build the studio, or check what is committed.")
    parser.add_argument("--check", action="store_true", help="only say what a build would change")
    try:
        if not parser.parse_args().check:
            find_node()
            build(SOURCES, BUILT)
            return 0
        changed = differences()
    except NoNode as reason:
        print(f"the studio was not built: {reason}")
        return 0 if "--check" in sys.argv else 1
    print(
        "\n".join(["the studio is out of date (make studio):", *changed] if changed else ["the studio is up to date"])
    )
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())

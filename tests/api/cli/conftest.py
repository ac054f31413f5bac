from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hyperdreambooth.cli.program import main


class Done(NamedTuple):
    """What a command ended with, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def hdb(address, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path) -> Callable[..., Done]:
    """The command line, speaking to the application in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HDB_URL", address)

    def run(*argv: str) -> Done:
        capsys.readouterr()
        try:
            status = main(argv)
        except SystemExit as end:
            status = int(end.code or 0)
        return Done(status, *capsys.readouterr())

    return run


@pytest.fixture
def me(tmp_path: Path, photo: bytes) -> str:
    """A photo's file."""
    file = tmp_path / "me.jpg"
    file.write_bytes(photo)
    return str(file)

"""`hdb keys`: API keys, where the service's own code and settings (`HDB_*`) are: it does not go over HTTP."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from hyperdreambooth.cli.output import complain
from hyperdreambooth.cli.parser import Commands

MODULE = "api.server.keys"
"""The service's command for keys; its `main(argv)` returns the exit status."""


def add_commands(top: Commands) -> None:
    """`hdb keys`."""
    top.elsewhere("keys", run, "make, list and revoke API keys, where the service's settings are")


def run(argv: Sequence[str]) -> int:
    """Hand the arguments to the service's own command; returns its exit status."""
    try:
        command = importlib.import_module(MODULE)
    except ModuleNotFoundError:
        complain("hdb keys works only beside the service: run it in the service's folder or container.")
        return 1
    status: int = command.main(argv)
    return status

"""API keys from the command line, on a machine that has the service's settings (`HDB_*`).

python -m api.keys create --tenant acme --name ci     prints the key, once
python -m api.keys list
python -m api.keys revoke ID
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from core.errors import HyperDreamBoothError
from core.keyring import KeyRing
from core.settings import load_settings
from core.storage import open_store


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says. The exit status: 0, or 1 with a sentence on stderr."""
    asked = _parser().parse_args(argv)
    try:
        ring = KeyRing(open_store(load_settings()))
        if asked.command == "create":
            return _create(ring, asked.tenant, asked.name)
        if asked.command == "revoke":
            return _revoke(ring, asked.id)
        return _list(ring)
    except HyperDreamBoothError as error:
        sys.stderr.write(f"{error.title()} {error.detail}\n" if error.detail != error.title() else f"{error.detail}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="api.keys", description="API keys: make them, list them, revoke them.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key and print it, once")
    create.add_argument("--tenant", required=True, help="whose subjects it opens: small letters, digits, hyphens")
    create.add_argument("--name", required=True, help="what it is for; only for the list")
    commands.add_parser("list", help="all keys, without their secrets")
    revoke = commands.add_parser("revoke", help="make a key worthless")
    revoke.add_argument("id", help="the part of the key between its underscores")
    return parser


def _create(ring: KeyRing, tenant: str, name: str) -> int:
    known, key = ring.create(tenant, name)
    sys.stdout.write(f"{key}\n")
    sys.stderr.write(f"Keep this key of {known.tenant} now: it is stored as a hash, and cannot be shown again.\n")
    return 0


def _list(ring: KeyRing) -> int:
    rows = [("ID", "TENANT", "NAME", "CREATED", "REVOKED")]
    rows += [
        (known.id, known.tenant, known.name, _when(known.created_at), _when(known.revoked_at))
        for known in sorted(ring.all(), key=lambda known: known.created_at)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
    return 0


def _revoke(ring: KeyRing, identifier: str) -> int:
    known = ring.revoke(identifier)
    sys.stderr.write(f"{known.id} of {known.tenant} opens nothing any more; running servers know it within 30 s.\n")
    return 0


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


if __name__ == "__main__":
    sys.exit(main())

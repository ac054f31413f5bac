"""`hdb keys`: API keys, on a machine that has the service's settings (`HDB_*`), not over HTTP."""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hyperdreambooth.cli.output import note, when, write_table

if TYPE_CHECKING:
    from core.tenants.api_keys import ApiKeys


def create(asked: Namespace) -> None:
    """Make a key and print it, once. Raises HyperDreamBoothError."""
    known, key = _ring().create(asked.tenant, asked.name)
    sys.stdout.write(f"{key}\n")
    note(f"Keep this key of {known.tenant} now: it is stored as a hash, and cannot be shown again.")


def list_all(_: Namespace) -> None:
    """All keys, without their secrets. Raises HyperDreamBoothError."""
    rows = [
        (known.id, known.tenant, known.name, _when(known.created_at), _when(known.revoked_at))
        for known in sorted(_ring().all(), key=lambda known: known.created_at)
    ]
    write_table(sys.stdout, [("ID", "TENANT", "NAME", "CREATED", "REVOKED"), *rows])


def revoke(asked: Namespace) -> None:
    """Make a key worthless. Raises HyperDreamBoothError."""
    known = _ring().revoke(asked.id)
    note(f"{known.id} of {known.tenant} opens nothing any more; running servers know it within 30 s.")


def _ring() -> ApiKeys:
    # Here, since the other commands need neither the settings nor the store, which take their time to load.
    from core.settings import load_settings  # noqa: PLC0415
    from core.storage import open_store  # noqa: PLC0415
    from core.tenants.api_keys import ApiKeys  # noqa: PLC0415

    return ApiKeys(open_store(load_settings()))


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else when(datetime.fromtimestamp(seconds, UTC))

"""`python -m tests.faults.broken MODULE`: the module as a program, over a store that fails as `faults.json` says.

What the file `without` in the data folder names is switched off. Webhook messages are sent again after a second.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from core.webhooks import dispatcher
from tests.faults.engine import break_writes, read_faults, switch_off


def main() -> None:
    """Run it."""
    folder, module = Path(os.environ["HDB_DATA_DIR"]), sys.argv[1]
    switch_off((folder / "without").read_text())
    break_writes(lambda: read_faults(folder / "faults.json").get("store", ""))
    dispatcher.FIRST_WAIT = 1.0
    dispatcher.COOLDOWN_SECONDS = 1.0
    sys.argv[:2] = [module]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()

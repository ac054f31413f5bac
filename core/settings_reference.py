"""docs/settings.md from the settings themselves. `make docs` writes it.

python -m core.settings_reference docs/settings.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from core.settings import EMBEDDED_BUNDLE, LOCAL_DATA, PREFIX, Settings

_HEAD = """# Settings

Made by `make docs` from `core/settings.py`: change the settings there, not this file. Each is an environment variable.
An `HDB_*` variable that is not in this list is an error. `hdb` reads `HDB_URL` and `HDB_API_KEY` besides.

| variable | default | |
|---|---|---|
"""


def settings_reference() -> str:
    """All settings as Markdown, in the order of their declaration."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {' '.join((field.description or '').split())} |"
        for name, field in Settings.model_fields.items()
    ]
    return _HEAD + "\n".join(rows) + "\n"


def _default(value: Any) -> str:
    if value in ("", None, ()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value == str(EMBEDDED_BUNDLE):
        return f"`core/bundles/{EMBEDDED_BUNDLE.name}`"
    if value == LOCAL_DATA:
        return f"`{'/'.join(LOCAL_DATA.parts[-2:])}`"
    return f"`{value}`"


def main(arguments: list[str]) -> int:
    """Write the named file, and return the exit status: 2 without a name."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m core.settings_reference FILE\n")
        return 2
    Path(arguments[0]).write_text(settings_reference())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

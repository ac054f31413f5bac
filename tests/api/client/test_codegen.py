"""The blocking client and the client's options are made from other files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

from hyperdreambooth import schemas
from hyperdreambooth.client import GenerateOptions, PhotoOptions, SubjectOptions

CODEGEN = Path(__file__).resolve().parents[3] / "api" / "client" / "codegen.py"


def test_what_is_made_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, CODEGEN, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_option_of_the_contract_is_an_option_of_the_client() -> None:
    assert list(get_type_hints(GenerateOptions)) == list(schemas.GenerationOptions.model_fields)
    assert set(get_type_hints(PhotoOptions)) == {"keep_photos", "face", *schemas.PersonalizeOptions.model_fields}
    form = set(schemas.SubjectForm.model_fields) - {"consent", "options"}
    assert set(get_type_hints(SubjectOptions)) == form | set(schemas.PersonalizeOptions.model_fields)


def test_the_blocking_client_has_nothing_asynchronous() -> None:
    for file in (CODEGEN.parent / "hyperdreambooth" / "client" / "sync").glob("*.py"):
        text = file.read_text()
        assert not [word for word in ("async ", "await ", "anyio", "Async") if word in text], file.name

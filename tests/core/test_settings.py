from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.errors import SettingsError
from core.settings import is_weak, load_settings

KEYS = ["2d711642b726b04401627ca9fbac32f5", "correct-horse-battery-staple"]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDB_QUEUE_LIMIT", "7")
    monkeypatch.setenv("HDB_API_KEYS", ", ".join(KEYS))
    settings = load_settings()
    assert settings.queue_limit == 7
    assert [key.get_secret_value() for key in settings.api_keys] == KEYS
    assert KEYS[0] not in repr(settings)


@pytest.mark.parametrize(
    "weak",
    [
        "a",
        "changeme",
        "password" * 4,
        "a" * 64,
        "ab" * 20,
        "abcdefghijklmnopqrstuvwxyz",
        "zyxwvutsrqponmlkjihgfedcba",
        "0123456789" * 3,
        "aaaaaaaaaaaaaaaaaaabcdefgh",
        "c88d551eb7b281ddc059b6",
    ],
)
def test_weak_keys_are_refused_with_a_sentence_that_does_not_say_them(
    monkeypatch: pytest.MonkeyPatch, weak: str
) -> None:
    monkeypatch.setenv("HDB_API_KEYS", f"{KEYS[0]},{weak}")
    with pytest.raises(SettingsError, match="HDB_API_KEYS: key 2 of 2 is too easy to guess") as caught:
        load_settings()
    assert KEYS[0] not in caught.value.detail
    assert weak == "a" or weak not in caught.value.detail


@pytest.mark.parametrize("make", [lambda: secrets.token_hex(16), lambda: secrets.token_urlsafe(18)])
def test_random_keys_are_not_weak(make: Callable[[], str]) -> None:
    assert not any(is_weak(make()) for _ in range(2000))


def test_recognisers_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().recognisers == ()
    monkeypatch.setenv("HDB_RECOGNISERS", "/models/one.onnx, two.onnx")
    assert load_settings().recognisers == (Path("/models/one.onnx"), Path("two.onnx"))


def test_what_is_given_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDB_QUEUE_LIMIT", "7")
    assert load_settings(queue_limit=9).queue_limit == 9


def test_a_misspelt_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDB_QUEUE_LIMTI", "7")
    with pytest.raises(SettingsError, match="HDB_QUEUE_LIMTI"):
        load_settings()


def test_a_setting_of_a_newer_version_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HDB_SOMETHING_ELSE_ENTIRELY", "7")
    load_settings()
    assert "HDB_SOMETHING_ELSE_ENTIRELY" in caplog.text


def test_the_command_lines_own_variables_are_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDB_URL", "http://127.0.0.1:8000")
    monkeypatch.setenv("HDB_API_KEY", "hdb_1_2")
    load_settings()


@pytest.mark.parametrize(("name", "value"), [("queue_limit", "0"), ("store", "ftp://x"), ("log_level", "LOUD")])
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HDB_{name.upper()}", value)
    with pytest.raises(SettingsError, match=name if name == "store" else f"HDB_{name.upper()}"):
        load_settings()


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="HDB_NO_SUCH_THING"):
        load_settings(no_such_thing=1)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings().queue_limit = 3  # type: ignore[misc]


def test_the_store_lies_in_the_data_folder_unless_set(tmp_path: Path) -> None:
    assert load_settings(data_dir=tmp_path).store_url == f"file://{tmp_path}/store"


@pytest.mark.parametrize(("hard", "soft"), [(1800, 1770), (60, 30), (10, 5), (2, 1)])
def test_the_soft_limit_is_below_the_hard_one(hard: int, soft: int) -> None:
    assert load_settings(job_time_limit=hard).soft_time_limit == soft

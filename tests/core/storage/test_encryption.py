from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import SettingsError
from core.settings import Settings
from core.storage.encryption import Cipher, open_cipher

SECRET = "whsec_abc"
KEY = base64.b64encode(bytes(range(32))).decode()


def test_what_is_sealed_can_be_opened_and_says_nothing() -> None:
    cipher = Cipher(lambda: bytes(32))
    sealed = cipher.seal(SECRET, "acme/1")
    assert cipher.open(sealed, "acme/1") == SECRET
    assert SECRET not in sealed
    assert SECRET not in base64.b64decode(sealed.partition(":")[2]).decode("latin-1")
    assert cipher.seal(SECRET, "acme/1") != sealed


def test_it_opens_with_its_key_and_in_its_place_only() -> None:
    sealed = Cipher(lambda: bytes(32)).seal(SECRET, "acme/1")
    changed = sealed[:-4] + ("AAA=" if sealed[-4:] != "AAA=" else "BBB=")
    for cipher, text, about in [
        (Cipher(lambda: b"1" * 32), sealed, "acme/1"),
        (Cipher(lambda: bytes(32)), sealed, "other/1"),
        (Cipher(lambda: bytes(32)), changed, "acme/1"),
        (Cipher(lambda: bytes(32)), "sealed:", "acme/1"),
        (Cipher(lambda: bytes(32)), "sealed:!", "acme/1"),
    ]:
        with pytest.raises(SettingsError, match="HDB_ENCRYPTION_KEY"):
            cipher.open(text, about)


def test_what_an_earlier_version_left_in_clear_is_read() -> None:
    assert Cipher(lambda: bytes(32)).open(SECRET, "acme/1") == SECRET


def test_the_key_is_that_of_the_settings() -> None:
    sealed = open_cipher(Settings(encryption_key=KEY)).seal(SECRET, "a")
    assert Cipher(lambda: bytes(range(32))).open(sealed, "a") == SECRET


def test_processes_on_one_folder_share_the_key_that_the_first_one_makes(tmp_path: Path) -> None:
    ciphers = [open_cipher(Settings(data_dir=tmp_path / "data")) for _ in range(8)]
    assert list(tmp_path.iterdir()) == [], "nothing is written before it is needed"
    with ThreadPoolExecutor(8) as threads:
        sealed = list(threads.map(lambda cipher: cipher.seal(SECRET, "a"), ciphers))
    assert [ciphers[0].open(text, "a") for text in sealed] == [SECRET] * 8
    (file,) = (tmp_path / "data").iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="openssl rand"):
        open_cipher(Settings(store="s3://bucket/prefix"))
    for text in ("short", "!", base64.b64encode(bytes(31)).decode()):
        with pytest.raises(SettingsError, match="openssl rand"):
            open_cipher(Settings(encryption_key=text))
    (tmp_path / "encryption.key").write_text("")
    with pytest.raises(SettingsError, match="openssl rand"):
        open_cipher(Settings(data_dir=tmp_path)).seal(SECRET, "a")

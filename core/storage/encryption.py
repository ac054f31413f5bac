"""Encryption of what must not lie in the store in clear: webhook secrets, and answers that are repeated.

AES-256-GCM (NIST SP 800-38D). A text is sealed with what it is about, so that it cannot be moved to another
tenant. The key is `HDB_ENCRYPTION_KEY`, or the file `encryption.key` in the data folder, which is made when it is
needed for the first time.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import SettingsError
from core.settings import Settings

KEY_BYTES = 32
_NONCE_BYTES = 12
_SEALED = "sealed:"


class Cipher:
    """Seals and opens texts with one key."""

    def __init__(self, load_key: Callable[[], bytes]) -> None:
        """`load_key` is called when the key is needed for the first time; it returns KEY_BYTES bytes."""
        self._load_key = load_key

    def seal(self, text: str, about: str) -> str:
        """The text encrypted, in ASCII. Raises SettingsError: there is no good key."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._aead.encrypt(nonce, text.encode(), about.encode())
        return _SEALED + base64.b64encode(sealed).decode()

    def open(self, text: str, about: str) -> str:
        """The text that was sealed about this; one of an earlier version, in clear, is returned unchanged.

        Raises SettingsError: it was sealed with another key, or about something else.
        """
        if not is_sealed(text):
            return text
        try:
            sealed = base64.b64decode(text.removeprefix(_SEALED), validate=True)
            opened = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about.encode())
        except (InvalidTag, ValueError):
            raise SettingsError(f"{about} cannot be decrypted: set HDB_ENCRYPTION_KEY as it was.") from None
        return opened.decode()

    @cached_property
    def _aead(self) -> AESGCM:
        return AESGCM(self._load_key())


def is_sealed(text: str) -> bool:
    """Whether the text is one that was sealed."""
    return text.startswith(_SEALED)


def open_cipher(settings: Settings) -> Cipher:
    """The cipher of the settings. Raises SettingsError: the key is none, or is missing where machines must share it."""
    if settings.encryption_key:
        key = _decode(settings.encryption_key.get_secret_value())
        return Cipher(lambda: key)
    if settings.store_url.startswith("s3:"):
        raise SettingsError(
            "HDB_ENCRYPTION_KEY is missing: with a store in S3 all processes need the same. Make one with "
            "`openssl rand -base64 32`, and keep it."
        )
    return Cipher(lambda: _key_file(settings.data_dir / "encryption.key"))


def _key_file(file: Path) -> bytes:
    """The key in the file; the first process that needs one makes it."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = file.with_name(f".{secrets.token_hex(8)}.part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n")
        with contextlib.suppress(FileExistsError):  # another process was quicker
            os.link(part, file)
        part.unlink()
    return _decode(file.read_text().strip())


def _decode(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(f"The encryption key is not {KEY_BYTES} bytes in base64: `openssl rand -base64 32`.")
    return key

"""Settings from the environment (`HDB_*`): frozen, checked, made at entry points only and passed down from there.

`python -m core.settings_reference docs/settings.md` (`make docs`) writes the list of them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.errors import SettingsError

PREFIX = "HDB_"
OF_CLIENTS = frozenset({"HDB_URL", "HDB_API_KEY"})
"""Variables that the command line `hdb` reads; the service ignores them."""
LOCAL_DATA = Path(__file__).parent.parent / ".data" / "run"
"""Where `make run` keeps its data."""
KEY_LENGTH, KEY_CHARACTERS = 24, 8
"""Characters, and different characters, that a key of HDB_API_KEYS has at least: 24 random hex digits are 96 bits."""
_NEARLY = 0.85
"""How alike two names are (difflib's ratio) that one is taken for the other, misspelt."""
_log = logging.getLogger(__name__)
EMBEDDED_BUNDLE = Path(__file__).parent / "bundles" / "faces-128"


class Settings(BaseSettings):
    """The settings of a process: each is the environment variable `HDB_` and its name in capitals.

    An `HDB_*` variable whose name is nearly that of a setting is an error: a misspelt limit must not silently be no
    limit. Others that are no settings are a warning: a newer version may have them.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The Redis of the queue and of live progress."""
    data_dir: Path = LOCAL_DATA
    """The folder of a service that runs on one machine; that of `make run` when it is not set."""
    store: str = ""
    """Where photos, weights and images are stored: `file:///folder` or `s3://bucket/prefix`. Empty: `store` in the
    data folder."""
    s3_endpoint_url: str | None = None
    """The address of an S3 service other than AWS."""
    s3_region: str | None = None
    """The region of the bucket."""

    bundle: str = str(EMBEDDED_BUNDLE)
    """The bundle that is served: its folder, or the hub id of a diffusers pipeline."""
    device: str = "auto"
    """The torch device of a worker; `auto` takes a GPU where there is one."""
    threads: int = Field(default=0, ge=0)
    """Threads that a worker computes with on a CPU; 0: as many as cores it may use, quotas of containers counted. Where
    other programs need the cores, several workers with one thread each get more done."""
    recognisers: Annotated[tuple[Path, ...], NoDecode] = ()
    """Files of ONNX face recognisers that measure likeness beside the bundle's own, separated by commas."""
    engine: str = "worker.diffusion_engine:DiffusionEngine"
    """`module:class` of the engine that a worker runs; tests run another one."""

    api_host: str = "127.0.0.1"
    """The address that the API listens on. Addresses other than loopback need an API key."""
    api_port: int = Field(default=8000, ge=0, le=65535)
    """The port that the API listens on."""
    public_url: str = ""
    """The address that callers know, `https://pictures.example.com/hdb`: links begin with it. Empty: links are paths,
    or begin with the `X-Forwarded-Prefix` of a named proxy."""
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Addresses and networks of proxies whose `X-Forwarded-*` headers are believed, separated by commas."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names that the API answers under (`Host`), separated by commas; `*.example.com` is all below. Loopback and the
    public URL's are always among them. Empty: any."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """API keys of the tenant `local`, separated by commas, beside those of `hdb keys`."""
    wrong_keys_per_minute: int = Field(default=20, ge=0)
    """Wrong API keys that are tried out for each address in a minute, by each API process; 0: no limit."""
    requests_per_minute: int = Field(default=600, ge=0)
    """Requests that each tenant may make in a minute; 0: no limit."""
    personalizations_per_hour: int = Field(default=60, ge=0)
    """Requests that personalize that each tenant may make in an hour; 0: no limit."""
    pictures_per_hour: int = Field(default=2000, ge=0)
    """Work that each tenant may ask for in an hour, in pictures of the model's own size and steps; 0: no limit."""
    batch_pictures: int = Field(default=40_000, ge=1)
    """Work that a batch may be, in such pictures; batches do not count in an hour's work."""
    limit_local: bool = False
    """Whether the limits above apply to callers without a key as well, on a service that has none."""
    photo_decoders: int = Field(default=1, ge=1)
    """Photos that an API process decodes at the same time; one of 25 megapixels takes 300 MB for a second."""
    encryption_key: SecretStr | None = None
    """32 bytes in base64 that webhook secrets are encrypted with, the same for all processes. Empty: the file
    `encryption.key` in the data folder. Needed with a store in S3."""
    webhooks_per_tenant: int = Field(default=10, ge=0, le=100)
    """Webhooks that each tenant may have."""
    webhooks_allow_private: bool = False
    """Whether webhooks may have private addresses, and plain HTTP: for development and tests."""
    keep_photos: bool = False
    """Whether the aligned photos of all subjects are kept after personalizing; otherwise callers choose."""

    queue_limit: int = Field(default=500, ge=1)
    """Jobs of each tenant that may wait in each queue; more are refused with 429."""
    queue_total: int = Field(default=10_000, ge=1)
    """Jobs of all tenants that may wait in each queue; more are refused with 503."""
    max_attempts: int = Field(default=3, ge=1)
    """How often a job is started before it fails."""
    lease_seconds: float = Field(default=15.0, gt=0)
    """Seconds after which the job of a worker that no longer answers is given to another."""
    step_time_limit: float = Field(default=300.0, gt=0)
    """Seconds that a step may take; after that the worker process ends itself, and the job is tried again."""
    job_time_limit: int = Field(default=1800, ge=2)
    """Seconds that a job may take; it is asked to stop 30 s earlier, and its process is killed then."""
    stop_grace: float = Field(default=2.5, gt=0)
    """Seconds that a worker that is stopping waits for the end of a step before it gives its job back."""
    batch_rows: int = Field(default=16, ge=1)
    """Pictures that a worker makes in one pass, of several jobs and subjects: more on a larger GPU."""
    batch_window: int = Field(default=64, ge=1)
    """Items of its batches that each tenant may have in the queue at a time."""
    batch_limit: int = Field(default=20, ge=1)
    """Batches in progress that each tenant may have."""
    batch_kept_days: int = Field(default=30, ge=0)
    """Days after which a batch is deleted with its pictures; 0: never."""
    reap_seconds: float = Field(default=2.0, gt=0)
    """Seconds between two rounds of maintenance: expired leases, items of batches that are due."""
    notify_again_seconds: float = Field(default=5.0, gt=0)
    """Seconds that a job waits until a worker is notified again, unless a notification is on its way."""
    reconcile_seconds: float = Field(default=30.0, gt=0)
    """Seconds between two comparisons of the store and Redis, which bring back jobs that Redis has lost."""
    worker_max_memory_mb: int | None = Field(default=None, ge=64)
    """Megabytes of memory after which a worker process is replaced, between two jobs; empty: no limit."""
    load_time_limit: float = Field(default=600.0, gt=0)
    """Seconds that a worker process may take to load the bundle."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """The port on which a worker or the webhook dispatcher serves its metrics; 0: none. The API has `/metrics`."""
    metrics_host: str = "127.0.0.1"
    """The address of that port. Anybody who reaches it can read it: it names no tenant and no subject."""
    heartbeat_file: Path | None = None
    """A file that a worker or the webhook dispatcher touches every few seconds while it is healthy; empty: none."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe level that is logged."""

    @model_validator(mode="before")
    @classmethod
    def _split_and_refuse_unknown(cls, values: Any) -> Any:
        refuse_misspelt(os.environ)
        for name in ("allowed_hosts", "api_keys", "recognisers", "trusted_proxies"):
            given = values.get(name) if isinstance(values, dict) else None
            if isinstance(given, str):
                values = {**values, name: tuple(part.strip() for part in given.split(",") if part.strip())}
        return values

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, url: str) -> str:
        parts = urlsplit(url)
        is_bare = not (parts.query or parts.fragment or parts.username or re.search(r"[\s\\]", url))
        if url and not (parts.scheme in ("http", "https") and parts.hostname and is_bare):
            raise ValueError("write it as https://pictures.example.com/hdb")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for number, key in enumerate(self.api_keys, start=1):
            if is_weak(key.get_secret_value()):
                raise ValueError(
                    f"HDB_API_KEYS: key {number} of {len(self.api_keys)} is too easy to guess; take {KEY_LENGTH} "
                    "or more random characters (openssl rand -hex 32), or make keys with: hdb keys create"
                )
        if not self.store_url.startswith(("file:", "s3://")):
            raise ValueError("store must be file:///folder or s3://bucket/prefix")
        return self

    @property
    def store_url(self) -> str:
        """The URL of the store; that of the folder `store` in the data folder when none was set."""
        return self.store or (self.data_dir.resolve() / "store").as_uri()

    @property
    def soft_time_limit(self) -> int:
        """Seconds after which a job is asked to stop: 30 s before it is killed, or half-way when that is short."""
        return max(self.job_time_limit - 30, self.job_time_limit // 2)


def is_weak(key: str) -> bool:
    """Whether a key can be guessed: it is short, of few different characters, or mostly repeats or counts."""
    steps = [ord(second) - ord(first) for first, second in pairwise(key)]
    is_repeated = key in (key + key)[1:-1]
    counts = sum(step in (-1, 0, 1) for step in steps) > 0.75 * len(steps)
    return len(key) < KEY_LENGTH or len(set(key)) < KEY_CHARACTERS or is_repeated or counts


def refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Raise ValueError for an `HDB_*` variable that is nearly a setting; log a warning for others that are none."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | OF_CLIENTS
    unknown = sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    for name in unknown:
        for meant in get_close_matches(name.upper(), known, n=1, cutoff=_NEARLY):
            raise ValueError(f"there is no setting {name}; did you mean {meant}?")
    if unknown:  # as text: the log may not be set up yet
        _log.warning("settings.unknown %s: this version has no such settings", " ".join(unknown))


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process: `overrides`, then the environment, then the defaults. Raises SettingsError."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{PREFIX}{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}"
            if problem["loc"]
            else problem["msg"]
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(problems) from None

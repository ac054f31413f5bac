"""Settings from the environment (`HDB_*`): frozen, checked, made at entry points only and passed down from there.

`python -m core.settings_reference docs/settings.md` (`make docs`) writes the list of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.errors import SettingsError

PREFIX = "HDB_"
OF_CLIENTS = frozenset({"HDB_URL", "HDB_API_KEY"})
"""Variables that the command line `hdb` reads; the service ignores them."""
EMBEDDED_BUNDLE = Path(__file__).parent / "bundles" / "faces-64"


class Settings(BaseSettings):
    """The settings of a process: each is the environment variable `HDB_` and its name in capitals.

    An `HDB_*` variable that is not a setting is an error: a misspelt limit must not silently be no limit.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", use_attribute_docstrings=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The Redis of the queue and of live progress."""
    data_dir: Path = Path("data")
    """The folder of a service that runs on one machine."""
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
    recognisers: Annotated[tuple[Path, ...], NoDecode] = ()
    """Files of ONNX face recognisers that measure likeness beside the bundle's own, separated by commas."""
    engine: str = "worker.diffusion_engine:DiffusionEngine"
    """`module:class` of the engine that a worker runs; tests run another one."""

    api_host: str = "127.0.0.1"
    """The address that the API listens on. Addresses other than loopback need an API key."""
    api_port: int = Field(default=8000, ge=0, le=65535)
    """The port that the API listens on."""
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """API keys of the tenant `local`, separated by commas, beside those of `hdb keys`."""
    requests_per_minute: int = Field(default=600, ge=0)
    """Requests that each tenant may make in a minute; 0: no limit."""
    personalizations_per_hour: int = Field(default=60, ge=0)
    """Requests that personalize that each tenant may make in an hour; 0: no limit."""
    limit_local: bool = False
    """Whether the two limits above apply to the tenant `local` as well."""
    photo_decoders: int = Field(default=1, ge=1)
    """Photos that an API process decodes at the same time; one of 25 megapixels takes 300 MB for a second."""
    webhooks_per_tenant: int = Field(default=10, ge=0, le=100)
    """Webhooks that each tenant may have."""
    webhooks_allow_private: bool = False
    """Whether webhooks may have private addresses, and plain HTTP: for development and tests."""
    keep_photos: bool = False
    """Whether the aligned photos of all subjects are kept after personalizing; otherwise callers choose."""

    queue_limit: int = Field(default=500, ge=1)
    """Jobs that may wait in each queue; more are refused with 429."""
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
    notify_again_seconds: float = Field(default=60.0, gt=0)
    """Seconds after which a worker is notified again of a job that still waits."""
    reconcile_seconds: float = Field(default=30.0, gt=0)
    """Seconds between two comparisons of the store and Redis, which bring back jobs that Redis has lost."""
    worker_max_memory_mb: int | None = Field(default=None, ge=64)
    """Megabytes of memory after which a worker process is replaced, between two jobs; empty: no limit."""
    load_time_limit: float = Field(default=600.0, gt=0)
    """Seconds that a worker process may take to load the bundle."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe level that is logged."""

    @model_validator(mode="before")
    @classmethod
    def _split_and_refuse_unknown(cls, values: Any) -> Any:
        refuse_unknown(os.environ)
        for name in ("api_keys", "recognisers"):
            given = values.get(name) if isinstance(values, dict) else None
            if isinstance(given, str):
                values = {**values, name: tuple(part.strip() for part in given.split(",") if part.strip())}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
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


def refuse_unknown(environ: Mapping[str, str]) -> None:
    """Raise ValueError when the environment has an `HDB_*` variable that no setting reads."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | OF_CLIENTS
    unknown = sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)
    if unknown:
        raise ValueError(f"unknown environment variables: {', '.join(unknown)}")


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

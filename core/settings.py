"""Settings from the environment (`HDB_*`): frozen, checked, made at entry points only and handed down from there."""

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
"""Variables that the command line `hdb` reads; the service leaves them alone."""
EMBEDDED_BUNDLE = Path(__file__).parent / "bundles" / "faces-64"


class Settings(BaseSettings):
    """Everything that can be set from outside, with its environment variable's name in lower case, without the prefix.

    An `HDB_*` variable that is not listed here is an error: a misspelt limit must not silently be no limit.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    redis_url: str = "redis://127.0.0.1:6379/0"
    data_dir: Path = Path("data")
    store: str = ""
    """`file:///folder` or `s3://bucket/prefix`; empty: the folder `store` in `data_dir`."""
    s3_endpoint_url: str | None = None
    s3_region: str | None = None

    bundle: str = str(EMBEDDED_BUNDLE)
    """A bundle's folder, or the hub id of a diffusers pipeline."""
    device: str = "auto"
    recognisers: Annotated[tuple[Path, ...], NoDecode] = ()
    """Separated by commas: ONNX face recognisers that judge likeness beside the bundle's own, named by their files."""
    poor_likeness: float | None = Field(default=None, ge=-1, le=1)
    """What is poor by the first of `recognisers`: below this cosine there is one second try, at a higher rank."""
    engine: str = "worker.diffusion_engine:DiffusionEngine"
    """`module:class` of the engine the worker runs; tests and rehearsals put another one here."""

    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=0, le=65535)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Separated by commas, for the tenant `local`; with no key here or stored, the API listens on loopback only."""
    requests_per_minute: int = Field(default=600, ge=0)
    """For each tenant; 0: no limit."""
    personalizations_per_hour: int = Field(default=60, ge=0)
    """For each tenant; 0: no limit."""
    limit_local: bool = False
    """Whether the two limits hold for the tenant `local` as well."""
    webhooks_per_tenant: int = Field(default=10, ge=0, le=100)
    webhooks_allow_private: bool = False
    """Whether webhooks may be on this machine or in this network, and without TLS: for development and tests."""
    keep_photos: bool = False
    """Keep the aligned photos after personalising; otherwise they go when it ends, unless the caller asked to keep."""

    queue_limit: int = Field(default=500, ge=1)
    """How many jobs may wait in each queue before new ones are refused."""
    max_attempts: int = Field(default=3, ge=1)
    lease_seconds: float = Field(default=15.0, gt=0)
    step_time_limit: float = Field(default=300.0, gt=0)
    """A step that takes longer is taken for hung: the worker's child ends itself, and the job is tried again."""
    job_time_limit: int = Field(default=1800, ge=2)
    """Seconds after which a job's process is killed; it is asked to stop 30 s earlier."""
    stop_grace: float = Field(default=2.5, gt=0)
    """Seconds that a worker told to stop leaves its job to reach the end of a step, before it takes it away."""
    batch_jobs: int = Field(default=8, ge=1)
    batch_rows: int = Field(default=16, ge=1)
    """How many jobs, and how many pictures, a worker makes in one go."""
    batch_window: int = Field(default=64, ge=1)
    """How many items of its batches each tenant may have in the queue: the next ones come when these are taken."""
    batch_limit: int = Field(default=20, ge=1)
    """How many batches a tenant may have that are not over."""
    batch_kept_days: int = Field(default=30, ge=0)
    """Days after which a batch that is over is deleted, with its pictures; 0: kept until somebody deletes it."""
    reap_seconds: float = Field(default=2.0, gt=0)
    notify_again_seconds: float = Field(default=60.0, gt=0)
    reconcile_seconds: float = Field(default=30.0, gt=0)
    job_ttl_seconds: int = Field(default=24 * 3600, ge=1)
    """How long Redis remembers a job that is over; the store remembers it as long as its subject."""
    worker_max_tasks: int = Field(default=500, ge=1)
    worker_max_memory_mb: int | None = Field(default=None, ge=64)
    """Memory after which a worker's child is replaced (between jobs); empty: no such limit."""
    load_time_limit: float = Field(default=600.0, gt=0)
    """Seconds a worker's child may take to load the bundle."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

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
        if self.poor_likeness is not None and not self.recognisers:
            raise ValueError("poor_likeness is a cosine of the first of the recognisers: name one in recognisers")
        return self

    @property
    def store_url(self) -> str:
        """Where the store is, also when it was not set."""
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

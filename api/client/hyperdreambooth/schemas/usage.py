"""Usage: what a tenant's jobs came to."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from hyperdreambooth.schemas.base import Answer


class Usage(Answer):
    """Jobs that ended, by kind and status, the pictures they made, and the seconds that workers were busy with them."""

    jobs: dict[str, dict[str, int]] = Field(examples=[{"generate": {"succeeded": 12, "failed": 1}}])
    pictures: int = Field(examples=[40])
    seconds: float = Field(examples=[93.2])


class DayUsage(Usage):
    """What was used on one day (UTC)."""

    day: date = Field(examples=["2024-05-04"])


class UsageAnswer(Answer):
    """What a tenant used in the days asked for."""

    tenant: str = Field(examples=["acme"])
    first_day: date = Field(examples=["2024-04-05"])
    last_day: date = Field(examples=["2024-05-04"])
    total: Usage
    days: list[DayUsage] = Field(description="Days on which a job ended, oldest first.")
    live: dict[str, int] | None = Field(
        description="What waits, by kind (`batch`: items of batches), and what is `running`; null while not known.",
        examples=[{"personalize": 0, "generate": 2, "batch": 0, "running": 1}],
    )

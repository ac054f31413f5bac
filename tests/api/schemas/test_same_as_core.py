"""The contract stands alone; these hold that it and the records of core have the same values."""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum
from typing import get_args

import pytest

from core import records
from core.hyperdreambooth import records as method
from core.jobs import events
from core.webhooks import addresses
from core.webhooks.messages import WebhookEvent
from hyperdreambooth import schemas


@pytest.mark.parametrize(
    ("public", "internal"),
    [
        (schemas.JobKind, records.JobKind),
        (schemas.JobStatus, records.JobState),
        (schemas.JobEventType, events.EventType),
        (schemas.SubjectStatus, records.SubjectStatus),
        (schemas.BatchStatus, records.BatchStatus),
        (schemas.ItemStatus, records.ItemStatus),
        (schemas.DeliveryStatus, records.DeliveryState),
    ],
)
def test_the_values_are_the_same(public: type[StrEnum], internal: type[StrEnum]) -> None:
    assert {each.name: each.value for each in public} == {each.name: each.value for each in internal}


def test_the_same_are_final() -> None:
    for status in schemas.JobStatus:
        assert status.is_final == records.JobState(status).is_final
    for event in schemas.JobEventType:
        assert event.is_last == events.EventType(event).is_last


def test_the_names_and_limits_are_the_same() -> None:
    assert set(get_args(schemas.WebhookEventName)) == set(WebhookEvent) - {WebhookEvent.TEST}
    assert set(get_args(schemas.WeightsStage)) == set(records.WeightsStage)
    assert set(get_args(schemas.PictureNote)) == set(records.PictureNote)
    assert schemas.MAX_ITEMS == records.MAX_ITEMS
    assert schemas.MAX_URL == addresses.MAX_URL


def test_every_option_reaches_the_worker() -> None:
    assert set(schemas.GenerationOptions.model_fields) <= set(records.GenerateRequest.model_fields)
    personalize = set(schemas.PersonalizeOptions.model_fields)
    assert personalize <= set(records.PersonalizeRequest.model_fields)
    assert personalize <= {each.name for each in fields(method.PersonalizeOptions)}

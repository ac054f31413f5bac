"""The program in docs/webhooks.md takes what the dispatcher sends, and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.webhooks.messages import WebhookEvent
from core.webhooks.records import new_secret
from core.webhooks.signing import headers

DOCS = Path(__file__).resolve().parents[3] / "docs" / "webhooks.md"
SECRET = new_secret()
BODY = b'{"type":"webhook.test","timestamp":"2024-05-04T10:20:30.120Z","data":{}}'


@pytest.fixture(scope="module")
def verified() -> Callable[..., dict[str, Any]]:
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(program, str(DOCS), "exec"), names)
    found: Callable[..., dict[str, Any]] = names["verified"]
    return found


def sent(at: float = 0.0) -> dict[str, str]:
    return headers([SECRET], "msg_1", int(time.time() + at), BODY)


def test_a_message_is_taken(verified: Callable[..., dict[str, Any]]) -> None:
    assert verified(BODY, sent(), SECRET)["type"] == "webhook.test"


def test_one_good_signature_of_several_is_enough(verified: Callable[..., dict[str, Any]]) -> None:
    both = {**sent(), "webhook-signature": f"v1,AAAA {sent()['webhook-signature']}"}
    assert verified(BODY, both, SECRET)


def test_either_secret_does_while_both_count(verified: Callable[..., dict[str, Any]]) -> None:
    both = headers([new_secret(), SECRET], "msg_1", int(time.time()), BODY)
    assert verified(BODY, both, SECRET)


@pytest.mark.parametrize(
    ("body", "changed", "secret"),
    [
        (BODY + b" ", {}, SECRET),
        (BODY, {"webhook-id": "msg_2"}, SECRET),
        (BODY, {"webhook-timestamp": str(int(time.time()) + 100)}, SECRET),
        (BODY, {"webhook-signature": "v1,AAAA"}, SECRET),
        (BODY, sent(-3600), SECRET),
        (BODY, {}, new_secret()),
    ],
    ids=["body", "id", "time", "signature", "old", "secret"],
)
def test_a_forgery_is_not(
    verified: Callable[..., dict[str, Any]], body: bytes, changed: dict[str, str], secret: str
) -> None:
    with pytest.raises(ValueError, match=r"secret|old"):
        verified(body, {**sent(), **changed}, secret)


def test_every_event_is_in_the_table() -> None:
    text = DOCS.read_text()
    assert all(f"`{event}`" in text for event in WebhookEvent)

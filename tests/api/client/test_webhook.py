from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from core.webhooks import signing
from hyperdreambooth.client import ForgedDelivery, verify_webhook

KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
BODY = b'{"type": "job.succeeded"}'
NOW = 1_714_818_030


def signed(body: bytes = BODY, *, key: bytes = KEY, at: int = NOW) -> dict[str, str]:
    digest = hmac.new(key, f"msg_1.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": f"v1,{'A' * 43}= v1,{base64.b64encode(digest).decode()}",
    }


def test_what_the_service_signed_is_taken():
    assert verify_webhook(BODY, signed(), SECRET, now=NOW + 60) == {"type": "job.succeeded"}


def test_the_specifications_own_example():
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify_webhook(b'{"test": 2432232314}', headers, secret, now=1614265330)


def test_it_agrees_with_those_who_sign():
    assert verify_webhook(BODY, signing.headers([SECRET], "msg_1", NOW, BODY), SECRET, now=NOW)


@pytest.mark.parametrize(
    ("body", "headers", "secret"),
    [
        (BODY + b" ", signed(), SECRET),
        (BODY, signed(key=b"another"), SECRET),
        (BODY, signed(at=NOW - 301), SECRET),
        (BODY, signed(at=NOW + 301), SECRET),
        (BODY, {**signed(), "Webhook-Id": "msg_2"}, SECRET),
        (BODY, {**signed(), "Webhook-Timestamp": "soon"}, SECRET),
        (BODY, {**signed(), "Webhook-Signature": ""}, SECRET),
        (BODY, {**signed(), "Webhook-Signature": "v1,é"}, SECRET),
        (BODY, {}, SECRET),
        (BODY, signed(), "whsec_not base64"),
    ],
)
def test_everything_else_is_not(body, headers, secret):
    with pytest.raises(ForgedDelivery):
        verify_webhook(body, headers, secret, now=NOW)

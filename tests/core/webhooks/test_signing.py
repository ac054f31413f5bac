from __future__ import annotations

import base64
import hashlib
import hmac

from core.webhooks.records import new_secret
from core.webhooks.signing import headers, sign


def test_it_is_what_the_standard_gives_as_an_example() -> None:
    """From the specification: standard-webhooks.md, and the test of its libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_headers_are_what_was_signed() -> None:
    secret = new_secret()
    sent = headers([secret], "msg_1", 1700000000, b"{}")
    assert (sent["webhook-id"], sent["webhook-timestamp"]) == ("msg_1", "1700000000")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert len(key) == 32
    digest = hmac.new(key, b"msg_1.1700000000.{}", hashlib.sha256).digest()
    assert sent["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_each_secret_signs() -> None:
    old, new = new_secret(), new_secret()
    signatures = headers([new, old], "msg_1", 1700000000, b"{}")["webhook-signature"].split(" ")
    assert signatures == [sign(secret, "msg_1", 1700000000, b"{}") for secret in (new, old)]


def test_no_two_secrets_are_alike() -> None:
    assert len({new_secret() for _ in range(100)}) == 100

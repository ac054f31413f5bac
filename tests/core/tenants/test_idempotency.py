from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from core.ids import new_id
from core.storage import keys
from core.tenants import idempotency
from core.tenants.idempotency import SavedResponse, SavedResponses
from core.testing import CIPHER

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

DIGEST = "0" * 64


@pytest.fixture
def responses(harness: ServiceHarness) -> SavedResponses:
    return SavedResponses(harness.store, harness.ledger.redis, CIPHER)


def given(**changes: object) -> SavedResponse:
    response = SavedResponse(
        fingerprint="f", created_at=time.time(), status=202, headers={"location": "/x"}, body="Ada"
    )
    return response.model_copy(update=changes)


def test_a_response_is_found_for_a_day(responses: SavedResponses, harness: ServiceHarness) -> None:
    assert responses.find("acme", DIGEST) is None
    responses.save("acme", DIGEST, given(), [])
    assert b"Ada" not in b"".join(harness.store.objects.values())
    harness.ledger.redis.flushall()
    found = responses.find("acme", DIGEST)
    assert found
    assert (found.status, found.headers, found.body) == (202, {"location": "/x"}, "Ada")
    assert responses.find("other", DIGEST) is None
    responses.save("acme", DIGEST.replace("0", "1"), given(created_at=time.time() - 23.9 * 3600), [])
    assert responses.find("acme", DIGEST.replace("0", "1"))
    responses.save("acme", DIGEST.replace("0", "2"), given(created_at=time.time() - 24.1 * 3600), [])
    assert responses.find("acme", DIGEST.replace("0", "2")) is None


def test_deleting_a_subject_erases_the_responses_about_it(responses: SavedResponses, harness: ServiceHarness) -> None:
    subject, _ = harness.new_subject()
    responses.save("local", DIGEST, given(), [subject.id, new_id("sub")])
    harness.subjects.delete("local", subject.id)
    assert not any(b"Ada" in data for data in harness.store.objects.values())
    assert not any(subject.id in key for key in harness.store.list("idempotency/"))
    left = responses.find("local", DIGEST)
    assert left
    assert (left.fingerprint, left.body, left.headers) == ("f", None, {})


def test_a_response_that_comes_after_the_deletion_is_erased(responses: SavedResponses, harness: ServiceHarness) -> None:
    subject, _ = harness.new_subject()
    harness.subjects.delete("local", subject.id)
    responses.save("local", DIGEST, given(), [subject.id])
    assert not any(b"Ada" in data for data in harness.store.objects.values())


def test_old_answers_are_forgotten(responses: SavedResponses, harness: ServiceHarness) -> None:
    responses.save("acme", DIGEST, given(created_at=time.time() - 49 * 3600), [new_id("sub")])
    responses.save("acme", DIGEST, given(), [])
    idempotency.drop_old(harness.store)
    assert len(list(harness.store.list(keys.IDEMPOTENCY))) == 1
    assert responses.find("acme", DIGEST)


def test_one_at_a_time_has_the_lock(responses: SavedResponses, harness: ServiceHarness) -> None:
    token = responses.lock("acme", DIGEST, "f")
    assert token
    assert responses.lock("acme", DIGEST, "g") is None
    assert responses.lock("other", DIGEST, "g")
    assert responses.in_progress("acme", DIGEST) == "f"
    redis = harness.ledger.redis
    (lock,) = redis.keys("hdb:acme:idempotency:*")
    for holder, left in (("somebody else's", 5), (token, idempotency.LOCK_SECONDS)):
        redis.expire(lock, 5)
        responses.extend("acme", DIGEST, holder)
        assert redis.ttl(lock) == left
    responses.unlock("acme", DIGEST, "somebody else's")
    assert responses.in_progress("acme", DIGEST) == "f"
    responses.unlock("acme", DIGEST, token)
    assert responses.in_progress("acme", DIGEST) is None

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from core.ids import new_id
from core.storage import keys
from core.tenants import idempotency
from core.tenants.idempotency import Answer, Answers

if TYPE_CHECKING:
    from tests.harness import ServiceHarness

DIGEST = "0" * 64


@pytest.fixture
def answers(harness: ServiceHarness) -> Answers:
    return Answers(harness.store, harness.ledger.redis)


def given(**changes: object) -> Answer:
    answer = Answer(fingerprint="f", created_at=time.time(), status=202, headers={"location": "/x"}, body="Ada")
    return answer.model_copy(update=changes)


def test_an_answer_is_found_for_a_day(answers: Answers, harness: ServiceHarness) -> None:
    assert answers.find("acme", DIGEST) is None
    answers.remember("acme", DIGEST, given(), [])
    harness.ledger.redis.flushall()
    found = answers.find("acme", DIGEST)
    assert found
    assert (found.status, found.headers, found.body) == (202, {"location": "/x"}, "Ada")
    assert answers.find("other", DIGEST) is None
    answers.remember("acme", DIGEST.replace("0", "1"), given(created_at=time.time() - 23.9 * 3600), [])
    assert answers.find("acme", DIGEST.replace("0", "1"))
    answers.remember("acme", DIGEST.replace("0", "2"), given(created_at=time.time() - 24.1 * 3600), [])
    assert answers.find("acme", DIGEST.replace("0", "2")) is None


def test_deleting_a_subject_blanks_the_answers_about_it(answers: Answers, harness: ServiceHarness) -> None:
    subject, _ = harness.new_subject()
    answers.remember("local", DIGEST, given(), [subject.id, new_id("sub")])
    harness.jobs.delete_subject("local", subject.id)
    assert not any(b"Ada" in data for data in harness.store.objects.values())
    assert not any(subject.id in key for key in harness.store.list("idempotency/"))
    left = answers.find("local", DIGEST)
    assert left
    assert (left.fingerprint, left.body, left.headers) == ("f", None, {})


def test_an_answer_that_comes_after_the_deletion_is_blanked(answers: Answers, harness: ServiceHarness) -> None:
    subject, _ = harness.new_subject()
    harness.jobs.delete_subject("local", subject.id)
    answers.remember("local", DIGEST, given(), [subject.id])
    assert not any(b"Ada" in data for data in harness.store.objects.values())


def test_old_answers_are_forgotten(answers: Answers, harness: ServiceHarness) -> None:
    answers.remember("acme", DIGEST, given(created_at=time.time() - 49 * 3600), [new_id("sub")])
    answers.remember("acme", DIGEST, given(), [])
    idempotency.drop_old(harness.store)
    assert len(list(harness.store.list(keys.IDEMPOTENCY))) == 1
    assert answers.find("acme", DIGEST)


def test_one_at_a_time_has_the_lock(answers: Answers, harness: ServiceHarness) -> None:
    token = answers.lock("acme", DIGEST, "f")
    assert token
    assert answers.lock("acme", DIGEST, "g") is None
    assert answers.lock("other", DIGEST, "g")
    assert answers.in_progress("acme", DIGEST) == "f"
    redis = harness.ledger.redis
    (lock,) = redis.keys("hdb:acme:idempotency:*")
    for holder, left in (("somebody else's", 5), (token, idempotency.LOCK_SECONDS)):
        redis.expire(lock, 5)
        answers.hold("acme", DIGEST, holder)
        assert redis.ttl(lock) == left
    answers.unlock("acme", DIGEST, "somebody else's")
    assert answers.in_progress("acme", DIGEST) == "f"
    answers.unlock("acme", DIGEST, token)
    assert answers.in_progress("acme", DIGEST) is None

"""Answers that were given to creating requests, so that a repeated request gets the same one instead of a second job.

The answer is an object in the store, under its day: it survives a Redis that comes back empty. Redis only holds the
lock of a request that is being carried out:

hdb:{tenant}:idempotency:{digest}    token and fingerprint of who carries it out; gone after LOCK_SECONDS at the latest

An answer may hold a person's name. It is therefore noted beside each subject that it is about, and blanked when that
subject is deleted; what is left says only that the key was used. Neither key nor request is stored: only keyed hashes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import Field
from redis import Redis

from core.errors import ObjectNotFound
from core.queue.connection import redis_errors
from core.records import Record
from core.storage import Store, keys

KEPT_SECONDS = 24 * 3600
LOCK_SECONDS = 120
"""A lock that nobody holds any longer ends after this: its process has died."""
HOLD_SECONDS = 30.0
"""How often whoever carries a request out says that it still does."""

_UNLOCK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


_HOLD = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


class Answer(Record):
    """What was answered. `body` is None when it was blanked, `headers` are those worth repeating."""

    fingerprint: str
    created_at: float
    status: int = 0
    headers: dict[str, str] = Field(default={})
    body: str | None = None


class Answers:
    """Remembered answers and the locks of those that are being made. Raises StoreUnavailable, BrokerUnavailable."""

    def __init__(self, store: Store, redis: Redis) -> None:
        """`redis` decodes its answers to str."""
        self._store = store
        self._redis = redis
        self._unlock = redis.register_script(_UNLOCK)
        self._hold = redis.register_script(_HOLD)

    def find(self, tenant: str, digest: str) -> Answer | None:
        """The answer that was given under this digest in the last day, or None."""
        now = time.time()
        for day in (_day(now), _day(now - KEPT_SECONDS)):
            answer = _get(self._store, keys.answer(day, tenant, digest))
            if answer and now - answer.created_at < KEPT_SECONDS:
                return answer
        return None

    def remember(self, tenant: str, digest: str, answer: Answer, subject_ids: Iterable[str]) -> None:
        """Keep the answer, and note whom it is about; blank it when one of them was deleted meanwhile."""
        day, named = _day(answer.created_at), sorted(set(subject_ids))
        self._store.put(
            keys.answer(day, tenant, digest), answer.model_dump_json().encode(), content_type="application/json"
        )
        for subject_id in named:
            self._store.put(keys.about(day, tenant, subject_id) + digest, b"")
        if any(self._store.exists(keys.erasure(tenant, subject_id)) for subject_id in named):
            for subject_id in named:
                blank(self._store, tenant, subject_id)

    def lock(self, tenant: str, digest: str, fingerprint: str) -> str | None:
        """The right to carry the request out, as a token to give back; None while somebody else has it."""
        token = f"{secrets.token_hex(8)} {fingerprint}"
        with redis_errors():
            held = self._redis.set(_lock(tenant, digest), token, nx=True, ex=LOCK_SECONDS)
        return token if held else None

    def in_progress(self, tenant: str, digest: str) -> str | None:
        """The fingerprint of the request that is being carried out, or None."""
        with redis_errors():
            token = self._redis.get(_lock(tenant, digest))
        return None if token is None else str(token).partition(" ")[2]

    def unlock(self, tenant: str, digest: str, token: str) -> None:
        """Give the right back, if it is still this one's."""
        with redis_errors():
            self._unlock(keys=[_lock(tenant, digest)], args=[token])

    def hold(self, tenant: str, digest: str, token: str) -> None:
        """Keep the right for another `LOCK_SECONDS`, if it is still this one's."""
        with redis_errors():
            self._hold(keys=[_lock(tenant, digest)], args=[token, LOCK_SECONDS])


def blank(store: Store, tenant: str, subject_id: str) -> None:
    """Take the text out of all answers about a subject, and remove what says that they are about it."""
    for back in range(3):  # the third day is there until `drop_old` comes by
        day = _day(time.time() - back * KEPT_SECONDS)
        prefix = keys.about(day, tenant, subject_id)
        for marker in list(store.list(prefix)):
            _blank(store, keys.answer(day, tenant, marker.removeprefix(prefix)))
            store.delete(marker)


def drop_old(store: Store) -> None:
    """Forget the answers of days that are over for longer than they count. Reads names only."""
    oldest = _day(time.time() - KEPT_SECONDS)
    for key in store.list(keys.IDEMPOTENCY):
        if key.removeprefix(keys.IDEMPOTENCY).partition("/")[0] >= oldest:
            return
        store.delete(key)


def _blank(store: Store, key: str) -> None:
    answer = _get(store, key)
    if answer and answer.body is not None:
        left = Answer(fingerprint=answer.fingerprint, created_at=answer.created_at)
        store.put(key, left.model_dump_json().encode(), content_type="application/json")


def _get(store: Store, key: str) -> Answer | None:
    try:
        return Answer.model_validate_json(store.get(key))
    except ObjectNotFound:
        return None


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _lock(tenant: str, digest: str) -> str:
    return f"hdb:{tenant}:idempotency:{digest}"

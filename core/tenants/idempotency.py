"""Saved responses to creating requests: a repeated request gets the same response instead of a second job.

A response is an object in the store, under its day: it survives a Redis that comes back empty. Redis only has the lock
of a request that is being carried out:

hdb:{tenant}:idempotency:{digest}    its token and fingerprint; expires after LOCK_SECONDS unless it is extended

What a request makes has ids that follow from the record of its first try, which is written before anything is made:
when that try's process died, the next one finds what is there, and makes nothing twice.

A response may contain a person's name. A marker beside each subject that it is about leads to it, and it is erased with
that subject; what is left says only that the key was used. Neither key nor request is stored: only
keyed hashes. Bodies are encrypted.
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
from core.storage.encryption import Cipher
from core.storage.stored import dump, load

KEPT_SECONDS = 24 * 3600
LOCK_SECONDS = 8
"""A lock that is not extended expires after this: its process has died."""
EXTEND_SECONDS = 2.0
"""How often the process that carries a request out extends its lock."""

_UNLOCK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_EXTEND = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


class SavedResponse(Record):
    """A response as it is stored. `body` is None when it was erased; `headers` are those that are sent again.

    With a `salt` there is no response yet: a try was begun, and what it makes has its ids of this salt and time.
    """

    fingerprint: str
    created_at: float
    salt: str = ""
    made: str = ""
    """The id of what is made, where it does not follow from the salt: of a batch, which was sent before."""
    status: int = 0
    headers: dict[str, str] = Field(default={})
    body: str | None = None


class SavedResponses:
    """The saved responses, and the locks of pending ones. Raises StoreUnavailable, BrokerUnavailable."""

    def __init__(self, store: Store, redis: Redis, cipher: Cipher) -> None:
        """`redis` decodes its answers to str. `cipher` encrypts the bodies, which may hold names and secrets."""
        self._store = store
        self._cipher = cipher
        self._redis = redis
        self._unlock = redis.register_script(_UNLOCK)
        self._extend = redis.register_script(_EXTEND)

    def find(self, tenant: str, digest: str) -> SavedResponse | None:
        """The response that was saved under this digest in the last 24 hours, or None."""
        now = time.time()
        for day in (_day(now), _day(now - KEPT_SECONDS)):
            response = _get(self._store, keys.answer(day, tenant, digest))
            if response and now - response.created_at < KEPT_SECONDS:
                body = None if response.body is None else self._cipher.open(response.body, _about(tenant, digest))
                return response.model_copy(update={"body": body})
        return None

    def save(self, tenant: str, digest: str, response: SavedResponse, about: Iterable[str]) -> None:
        """Save a response that is `about` these subjects; erase it when one of them was deleted meanwhile."""
        day, named = _day(response.created_at), sorted(set(about))
        for subject_id in named:  # first: without its markers it would outlive whom it is about
            self._store.put(keys.about(day, tenant, subject_id) + digest, b"")
        body = None if response.body is None else self._cipher.seal(response.body, _about(tenant, digest))
        self._put(tenant, digest, response.model_copy(update={"body": body}))
        if any(self._store.exists(keys.erasure(tenant, subject_id)) for subject_id in named):
            for subject_id in named:
                erase(self._store, tenant, subject_id)

    def begin(self, tenant: str, digest: str, fingerprint: str) -> SavedResponse:
        """Note that a request is about to be carried out. Its caller has the lock, and has found no response."""
        begun = SavedResponse(fingerprint=fingerprint, created_at=time.time(), salt=secrets.token_hex(16))
        self._put(tenant, digest, begun)
        return begun

    def note_made(self, tenant: str, digest: str, begun: SavedResponse, made: str) -> None:
        """Note the id of what is about to be made."""
        self._put(tenant, digest, begun.model_copy(update={"made": made}))

    def end(self, tenant: str, digest: str, begun: SavedResponse) -> None:
        """The request was refused: the key may be used for another one."""
        self._store.delete(keys.answer(_day(begun.created_at), tenant, digest))

    def lock(self, tenant: str, digest: str, fingerprint: str) -> str | None:
        """Acquire the lock of a request, and return its token; None while another request has it."""
        token = f"{secrets.token_hex(8)} {fingerprint}"
        with redis_errors():
            acquired = self._redis.set(_lock(tenant, digest), token, nx=True, ex=LOCK_SECONDS)
        return token if acquired else None

    def in_progress(self, tenant: str, digest: str) -> str | None:
        """The fingerprint of the request that has the lock, or None."""
        with redis_errors():
            token = self._redis.get(_lock(tenant, digest))
        return None if token is None else str(token).partition(" ")[2]

    def unlock(self, tenant: str, digest: str, token: str) -> None:
        """Release the lock if it is still this token's."""
        with redis_errors():
            self._unlock(keys=[_lock(tenant, digest)], args=[token])

    def extend(self, tenant: str, digest: str, token: str) -> None:
        """Have the lock expire `LOCK_SECONDS` from now, if it is still this token's."""
        with redis_errors():
            self._extend(keys=[_lock(tenant, digest)], args=[token, LOCK_SECONDS])

    def _put(self, tenant: str, digest: str, response: SavedResponse) -> None:
        key = keys.answer(_day(response.created_at), tenant, digest)
        self._store.put(key, dump(response), content_type="application/json")


def erase(store: Store, tenant: str, subject_id: str) -> None:
    """Erase all responses about a subject or a webhook, and the markers that lead to them."""
    for back in range(3):  # the third day is there until `drop_old` comes by
        day = _day(time.time() - back * KEPT_SECONDS)
        prefix = keys.about(day, tenant, subject_id)
        for marker in list(store.list(prefix)):
            _erase(store, keys.answer(day, tenant, marker.removeprefix(prefix)))
            store.delete(marker)


def drop_old(store: Store) -> None:
    """Delete the responses of days that ended more than KEPT_SECONDS ago. Reads names only."""
    oldest = _day(time.time() - KEPT_SECONDS)
    for key in store.list(keys.IDEMPOTENCY):
        if key.removeprefix(keys.IDEMPOTENCY).partition("/")[0] >= oldest:
            return
        store.delete(key)


def _erase(store: Store, key: str) -> None:
    store.delete(keys.aside(key))
    response = _get(store, key)
    if response and response.body is not None:
        left = SavedResponse(fingerprint=response.fingerprint, created_at=response.created_at)
        store.put(key, dump(left), content_type="application/json")


def _get(store: Store, key: str) -> SavedResponse | None:
    try:
        return load(store, key, SavedResponse)
    except ObjectNotFound:
        return None


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _about(tenant: str, digest: str) -> str:
    return f"{keys.IDEMPOTENCY}{tenant}/{digest}"


def _lock(tenant: str, digest: str) -> str:
    return f"hdb:{tenant}:idempotency:{digest}"

"""The service over a real Redis and a store in memory, with what tests do with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from core.jobs.claims import Assignment
from core.jobs.ledger import Ledger, Limits
from core.records import Consent, GenerateRequest, Job, JobKind, PersonalizeResult, Subject, Weights
from core.services import make_services
from core.storage.encryption import Cipher
from core.testing import MemoryNotifier, MemoryStore
from worker.maintenance import Maintenance

FAKE = {"HDB_ENGINE": "worker.testing:FakeEngine", "HDB_WEBHOOKS_ALLOW_PRIVATE": "true"}
"""The environment of a service whose worker has the fake engine."""
LIMITS = Limits(lease=15.0, notify_again=60.0, max_attempts=3, queue_limit=20, ttl=100)
SECRETS = [b"photo of a face", b"weights of a face", b"a [V] face"]


@dataclass
class ServiceHarness:
    """The services over a real Redis and a store in memory, and what lies below them."""

    ledger: Ledger
    store: MemoryStore = field(default_factory=MemoryStore)
    notifier: MemoryNotifier = field(default_factory=MemoryNotifier)
    keep_photos: bool = False
    cipher: Cipher | None = None

    def __post_init__(self) -> None:
        self.services = make_services(
            self.store, self.ledger, self.notifier, self.cipher, keep_photos=self.keep_photos, patience=0.0
        )
        self.archive, self.documents = self.services.jobs._archive, self.services.subjects._documents
        self.jobs, self.subjects, self.batches = self.services.jobs, self.services.subjects, self.services.batches
        self.photos, self.claims, self.locks = self.services.photos, self.services.claims, self.services.locks
        self.maintenance = Maintenance(self.services)

    def new_subject(self) -> tuple[Subject, Job]:
        return self.subjects.create("local", [SECRETS[0]], consent=Consent(at=1.0, version="1"))

    def ready_subject(self) -> Subject:
        subject, job = self.new_subject()
        assignment = self.claim(JobKind.PERSONALIZE, job.ref)
        assert self.claims.commit(assignment, self.weights_of(assignment), {"finetune": 1.0})
        return self.subjects.get("local", subject.id)

    def generation(self, subject: Subject, **changes: object) -> Job:
        request = GenerateRequest(subject_id=subject.id, prompt=SECRETS[2].decode()).model_copy(update=changes)
        return self.subjects.generate("local", request)

    def claim(self, kind: JobKind, ref: str = "") -> Assignment:
        (assignment,) = self.claims.claim(kind, ref, max_jobs=1, max_rows=100)
        return assignment

    def weights_of(self, assignment: Assignment) -> PersonalizeResult:
        """Weights made by this attempt, in the store, and the result that points to them."""
        key = self.claims.store(assignment, "refined.lidb", SECRETS[1], content_type="x/y")
        weights = Weights(refined_key=key, bytes=7, sha256="00")
        return PersonalizeResult(weights=weights, likeness=0.5, kept_step=9, bundle="toy", bundle_fingerprint="f")

    @contextmanager
    def without_redis(self) -> Iterator[None]:
        """Redis cannot be reached inside."""
        pool = self.ledger.redis.connection_pool
        before = dict(pool.connection_kwargs)
        pool.connection_kwargs["port"] = 9
        pool.disconnect()
        pool.reset()
        yield
        pool.connection_kwargs = before
        pool.reset()

    def let_lease_end(self, job: Job) -> None:
        """As if the worker had been dead for longer than a lease."""
        assert self.ledger.redis.zadd("hdb:running", {job.ref: 1}, xx=True, ch=True) == 1

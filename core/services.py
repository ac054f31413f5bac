"""The composition root of core: one place creates the services, and hands each what it must not import.

A package knows those below it only (batches > subjects > jobs > webhooks > tenants > queue, storage). What a job's end
or a subject's deletion means further up comes to it as a function.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Unpack

from redis import Redis

from core.batches.documents import BatchDocuments
from core.batches.packs import Packs
from core.batches.records import Batch
from core.batches.scheduler import BatchScheduler, ScheduleOptions
from core.batches.service import BatchService
from core.errors import BrokerUnavailable
from core.jobs.archive import JobArchive
from core.jobs.claims import Claims
from core.jobs.ledger import Ledger, Limits
from core.jobs.recovery import JobRecovery
from core.jobs.service import JobService
from core.models import ModelDescriptions
from core.queue.connection import connect
from core.queue.failures import Failures
from core.queue.locks import Locks
from core.queue.notifications import CeleryNotifier, Notifier, celery_app
from core.queue.workers import Workers
from core.records import Receipt, Request
from core.settings import Settings
from core.storage import Store, open_store
from core.storage.encryption import KEY_BYTES, Cipher, open_cipher
from core.subjects.deletion import SubjectDeletion
from core.subjects.documents import SubjectDocuments
from core.subjects.export_layouts import ExportLayouts
from core.subjects.job_effects import SubjectJobEffects
from core.subjects.photos import SubjectPhotos
from core.subjects.service import SubjectService
from core.tenants import idempotency, usage
from core.tenants.usage import Usage
from core.webhooks import publish, registry
from core.webhooks.registry import Webhooks


@dataclass(frozen=True)
class Services:
    """Everything that the API and the workers do with jobs, subjects and batches."""

    store: Store
    redis: Redis
    cipher: Cipher
    locks: Locks
    failures: Failures
    jobs: JobService
    claims: Claims
    recovery: JobRecovery
    subjects: SubjectService
    photos: SubjectPhotos
    deletion: SubjectDeletion
    export_layouts: ExportLayouts
    models: ModelDescriptions
    batches: BatchService
    packs: Packs
    webhooks: Webhooks
    workers: Workers
    usage: Usage

    def scheduler(self, **options: Unpack[ScheduleOptions]) -> BatchScheduler:
        """What feeds batches to the queue."""

        def on_over(batch: Batch, at: float, canceled: bool) -> None:
            publish.batch_ended(self.store, self.redis, batch.tenant, batch.id, at, canceled=canceled)

        documents = BatchDocuments(self.store)
        return BatchScheduler(documents, self.jobs, self.locks, on_over, self.failures, **options)

    def check(self) -> dict[str, str]:
        """As JobService.check, and two that are `unknown` without Redis.

        `workers`: `none` runs, or `none-loaded` its model; `erasures`: `overdue` when one has failed for too long.
        """
        checks = self.jobs.check()
        try:
            alive, loaded = self.workers.count()
            workers = "ok" if loaded else "none-loaded" if alive else "none"
            erasures = "overdue" if self.failures.overdue() else "ok"
        except BrokerUnavailable:
            workers = erasures = "unknown"
        return checks | {"workers": workers, "erasures": erasures}

    def drop_old(self) -> None:
        """Forget receipts, answers, usage and deliveries that have been kept for long enough."""
        self.deletion.drop_receipts()
        idempotency.drop_old(self.store)
        usage.drop_old(self.store)
        registry.drop_old(self.store)


def make_services(
    store: Store,
    ledger: Ledger,
    notifier: Notifier,
    cipher: Cipher | None = None,
    *,
    keep_photos: bool = False,
    patience: float = 60.0,
    work_of: Callable[[Request], float] = lambda _: 0.0,
) -> Services:
    """The services over a store and a Redis; options as in SubjectJobEffects, Claims and JobService.

    Without a `cipher` what is encrypted can be read by these services alone, as in tests.
    """
    cipher = cipher or Cipher(partial(secrets.token_bytes, KEY_BYTES))
    redis = ledger.redis
    archive, documents, batch_documents = JobArchive(store), SubjectDocuments(store), BatchDocuments(store)

    def on_deleted(receipt: Receipt) -> None:
        publish.subject_deleted(store, redis, receipt)

    forget = (batch_documents.blank_everywhere, partial(idempotency.erase, store))
    failures = Failures(redis)
    deletion = SubjectDeletion(documents, archive, ledger, failures=failures, forget=forget, on_deleted=on_deleted)
    effects = SubjectJobEffects(documents, deletion, keep_photos=keep_photos)
    used = Usage(store, redis)
    on_end = (used.note, partial(publish.job_ended, store, redis))
    jobs = JobService(archive, ledger, notifier, effects, on_end, work_of)
    recovery = JobRecovery(jobs, archive, ledger, effects, failures)
    subjects = SubjectService(documents, deletion, jobs)
    return Services(
        store=store,
        redis=redis,
        cipher=cipher,
        locks=Locks(redis),
        failures=failures,
        jobs=jobs,
        claims=Claims(jobs, archive, ledger, recover=recovery.reap, patience=patience),
        recovery=recovery,
        subjects=subjects,
        photos=SubjectPhotos(subjects, documents, jobs, redis),
        deletion=deletion,
        export_layouts=ExportLayouts(store),
        models=ModelDescriptions(store),
        batches=BatchService(batch_documents, jobs, subjects),
        packs=Packs(store),
        webhooks=Webhooks(store, redis, cipher),
        workers=Workers(redis),
        usage=used,
    )


def open_services(
    settings: Settings, *, notifier: Notifier | None = None, work_of: Callable[[Request], float] = lambda _: 0.0
) -> Services:
    """The services over the store and the Redis of the settings. Connects lazily: does not fail when they are down.

    `work_of` as in JobService: a process that accepts requests knows it.
    """
    limits = Limits(
        lease=settings.lease_seconds,
        notify_again=settings.notify_again_seconds,
        max_attempts=settings.max_attempts,
        queue_limit=settings.queue_limit,
        queue_total=settings.queue_total,
    )
    notifier = notifier or CeleryNotifier(celery_app(settings, producer=True))
    ledger = Ledger(connect(settings), limits)
    return make_services(
        open_store(settings),
        ledger,
        notifier,
        open_cipher(settings),
        keep_photos=settings.keep_photos,
        work_of=work_of,
    )

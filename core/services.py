"""The composition root of core: one place creates the services, and hands each what it must not import.

A package knows those below it only (batches > subjects > jobs > webhooks > tenants > queue, storage). What a job's end
or a subject's deletion means further up comes to it as a function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Unpack

from redis import Redis

from core.batches.documents import BatchDocuments
from core.batches.records import Batch
from core.batches.scheduler import BatchScheduler, ScheduleOptions
from core.batches.service import BatchService
from core.jobs.archive import JobArchive
from core.jobs.claims import Claims
from core.jobs.ledger import Ledger, Limits
from core.jobs.recovery import JobRecovery
from core.jobs.service import JobService
from core.queue.connection import connect
from core.queue.locks import Locks
from core.queue.notifications import CeleryNotifier, Notifier, celery_app
from core.records import Receipt
from core.settings import Settings
from core.storage import Store, open_store
from core.subjects.deletion import SubjectDeletion
from core.subjects.documents import SubjectDocuments
from core.subjects.export_layouts import ExportLayouts
from core.subjects.job_effects import SubjectJobEffects
from core.subjects.photos import SubjectPhotos
from core.subjects.service import SubjectService
from core.tenants import idempotency, usage
from core.webhooks import publish, registry
from core.webhooks.registry import Webhooks


@dataclass(frozen=True)
class Services:
    """Everything that the API and the workers do with jobs, subjects and batches."""

    store: Store
    redis: Redis
    locks: Locks
    jobs: JobService
    claims: Claims
    recovery: JobRecovery
    subjects: SubjectService
    photos: SubjectPhotos
    deletion: SubjectDeletion
    export_layouts: ExportLayouts
    batches: BatchService
    webhooks: Webhooks

    def scheduler(self, **options: Unpack[ScheduleOptions]) -> BatchScheduler:
        """What feeds batches to the queue."""

        def on_over(batch: Batch, at: float, canceled: bool) -> None:
            publish.batch_ended(self.store, self.redis, batch.tenant, batch.id, at, canceled=canceled)

        documents = BatchDocuments(self.store)
        return BatchScheduler(documents, self.jobs, self.locks, on_over, **options)

    def usage(self, tenant: str, *, days: int) -> Sequence[usage.Ended]:
        """The tenant's jobs that ended in the last days, today included. Raises StoreUnavailable."""
        return usage.ended(self.store, tenant, days=days)

    def drop_old(self) -> None:
        """Forget receipts, answers, usage and deliveries that have been kept for long enough."""
        self.deletion.drop_receipts()
        idempotency.drop_old(self.store)
        usage.drop_old(self.store)
        registry.drop_old(self.store)


def make_services(
    store: Store, ledger: Ledger, notifier: Notifier, *, keep_photos: bool = False, patience: float = 60.0
) -> Services:
    """The services over a store and a Redis. `keep_photos` and `patience` as in SubjectJobEffects and Claims."""
    redis = ledger.redis
    archive, documents, batch_documents = JobArchive(store), SubjectDocuments(store), BatchDocuments(store)

    def on_deleted(receipt: Receipt) -> None:
        publish.subject_deleted(store, redis, receipt)

    forget = (batch_documents.blank_everywhere, partial(idempotency.erase, store))
    deletion = SubjectDeletion(documents, archive, ledger, forget=forget, on_deleted=on_deleted)
    effects = SubjectJobEffects(documents, deletion, keep_photos=keep_photos)
    on_end = (partial(usage.note, store), partial(publish.job_ended, store, redis))
    jobs = JobService(archive, ledger, notifier, effects, on_end)
    subjects = SubjectService(documents, deletion, jobs)
    return Services(
        store=store,
        redis=redis,
        locks=Locks(redis),
        jobs=jobs,
        claims=Claims(jobs, archive, ledger, patience=patience),
        recovery=JobRecovery(jobs, archive, ledger, effects),
        subjects=subjects,
        photos=SubjectPhotos(subjects, documents, jobs, redis),
        deletion=deletion,
        export_layouts=ExportLayouts(store),
        batches=BatchService(batch_documents, jobs, subjects),
        webhooks=Webhooks(store, redis),
    )


def open_services(settings: Settings, *, notifier: Notifier | None = None) -> Services:
    """The services over the store and the Redis of the settings. Connects lazily: does not fail when they are down."""
    limits = Limits(
        lease=settings.lease_seconds,
        notify_again=settings.notify_again_seconds,
        max_attempts=settings.max_attempts,
        queue_limit=settings.queue_limit,
    )
    notifier = notifier or CeleryNotifier(celery_app(settings, producer=True))
    ledger = Ledger(connect(settings), limits)
    return make_services(open_store(settings), ledger, notifier, keep_photos=settings.keep_photos)

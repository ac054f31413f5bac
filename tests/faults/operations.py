"""Every operation that writes: what is there before it, and what it does. Each is a fault's place to strike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.batches.upload import BatchUpload, UploadLimits
from core.errors import QueueFull
from core.ids import Ids
from core.records import Consent, GenerateRequest, Job, JobKind, Subject
from core.webhooks.dispatcher import Dispatcher
from core.webhooks.schedule import Schedule
from tests.faults.world import TENANT, World, finish
from tests.harness import SECRETS, ServiceHarness

CONSENT = Consent(at=1.0, version="1")


@dataclass
class Scene:
    """What an operation finds: the ids of what was there before, and those that the request's key stands for."""

    world: World
    before: dict[str, Any] = field(default_factory=dict)
    ids: Ids = field(default_factory=Ids)

    def keyed(self, *, repeated: bool) -> Ids:
        """The ids of a request with a key."""
        return Ids(self.ids.salt, self.ids.at, repeated)


@dataclass(frozen=True)
class Operation:
    """`prepare` is never disturbed. `act` is; `again` is what a caller does who got no answer, with the same key."""

    name: str
    prepare: Callable[[ServiceHarness, Scene], None]
    act: Callable[[ServiceHarness, Scene], object]
    again: Callable[[ServiceHarness, Scene], object] | None = None


def create(harness: ServiceHarness, scene: Scene, *, repeated: bool = False) -> str:
    ids = scene.keyed(repeated=repeated)
    return harness.subjects.create(TENANT, [SECRETS[0]], consent=CONSENT, ids=ids)[1].id


def add(harness: ServiceHarness, scene: Scene, *, repeated: bool = False) -> str:
    subject: Subject = scene.before["subject"]
    ids = scene.keyed(repeated=repeated)
    return harness.photos.add(TENANT, subject.id, [SECRETS[0]], consent=CONSENT, ids=ids)[1].id


def generate(harness: ServiceHarness, scene: Scene, *, repeated: bool = False) -> str:
    request = GenerateRequest(subject_id=scene.before["subject"].id, prompt=SECRETS[2].decode())
    return harness.subjects.generate(TENANT, request, ids=scene.keyed(repeated=repeated)).id


def make_webhook(harness: ServiceHarness, scene: Scene, *, repeated: bool = False) -> str:
    make = harness.services.webhooks.create
    ids = scene.keyed(repeated=repeated)
    return make(TENANT, "https://hooks.example/one", None, description=None, most=5, ids=ids).id


def make_pack(harness: ServiceHarness, scene: Scene, *, repeated: bool = False) -> str:
    return harness.services.packs.create(TENANT, "mine", ("a [V] face",), scene.keyed(repeated=repeated)).id


def nothing(_: ServiceHarness, __: Scene) -> None:
    """There is nothing before."""


def listening(harness: ServiceHarness, _: Scene) -> None:
    """A webhook gets all messages."""
    harness.services.webhooks.create(TENANT, "https://hooks.example/all", None, description=None, most=5)


def ready(harness: ServiceHarness, scene: Scene, *, keep: bool = False) -> None:
    """A subject with weights, and a webhook."""
    listening(harness, scene)
    subject, job = harness.subjects.create(TENANT, [SECRETS[0]], consent=CONSENT, keep_photos=keep)
    finish(harness, harness.claim(JobKind.PERSONALIZE, job.ref))
    scene.before["subject"] = harness.subjects.get(TENANT, subject.id)


def kept(harness: ServiceHarness, scene: Scene) -> None:
    ready(harness, scene, keep=True)


def adding(harness: ServiceHarness, scene: Scene) -> None:
    """A subject that photos were added to: the job is queued."""
    ready(harness, scene, keep=True)
    scene.before["job"] = harness.photos.add(TENANT, scene.before["subject"].id, [SECRETS[0]], consent=CONSENT)[1]


def queued(harness: ServiceHarness, scene: Scene) -> None:
    """A job that makes a picture, queued."""
    ready(harness, scene)
    scene.before["job"] = harness.generation(scene.before["subject"])


def personalizing(harness: ServiceHarness, scene: Scene) -> None:
    """A subject's first job, queued."""
    listening(harness, scene)
    scene.before["subject"], scene.before["job"] = harness.subjects.create(TENANT, [SECRETS[0]], consent=CONSENT)


def running(prepare: Callable[[ServiceHarness, Scene], None]) -> Callable[[ServiceHarness, Scene], None]:
    """The same with the job claimed by a worker."""

    def claimed(harness: ServiceHarness, scene: Scene) -> None:
        prepare(harness, scene)
        job: Job = scene.before["job"]
        scene.before["claim"] = harness.claim(job.kind, job.ref)

    return claimed


def commit(harness: ServiceHarness, scene: Scene) -> None:
    finish(harness, scene.before["claim"])


def claim_and_finish(harness: ServiceHarness, scene: Scene) -> None:
    job: Job = scene.before["job"]
    for assignment in harness.claims.claim(job.kind, job.ref, max_jobs=1, max_rows=100):
        finish(harness, assignment)


def fail(harness: ServiceHarness, scene: Scene) -> None:
    harness.claims.fail(scene.before["claim"], QueueFull("It was not to be."))


def give_back(harness: ServiceHarness, scene: Scene) -> None:
    harness.claims.give_back(scene.before["claim"], counted=True)


def cancel(harness: ServiceHarness, scene: Scene) -> None:
    harness.jobs.cancel(TENANT, scene.before["job"].id)


def cancel_running(harness: ServiceHarness, scene: Scene) -> None:
    cancel(harness, scene)
    harness.claims.cancel(scene.before["claim"])


def delete(harness: ServiceHarness, scene: Scene) -> None:
    harness.subjects.delete(TENANT, scene.before["subject"].id)


def pictured(harness: ServiceHarness, scene: Scene) -> None:
    """A subject with a picture, a queued job, a batch that is over, and one that is not."""
    sent(harness, scene)
    harness.maintenance.scheduler.feed()
    claim_and_finish_batch(harness)
    harness.maintenance.scheduler.feed()
    fill(harness, scene).commit()
    scene.before["job"] = harness.generation(scene.before["subject"])


def claim_and_finish_batch(harness: ServiceHarness) -> None:
    while found := harness.claims.claim(JobKind.GENERATE, "", max_jobs=1, max_rows=100):
        finish(harness, found[0])


def fill(harness: ServiceHarness, scene: Scene) -> BatchUpload:
    upload = harness.batches.open_upload(TENANT, UploadLimits(5))
    for index in range(3):
        upload.add(GenerateRequest(subject_id=scene.before["subject"].id, prompt=f"a [V] face {index}", seed=index))
    return upload


def upload(harness: ServiceHarness, scene: Scene) -> None:
    fill(harness, scene).commit()


def discard(harness: ServiceHarness, scene: Scene) -> None:
    fill(harness, scene).discard()


def sent(harness: ServiceHarness, scene: Scene) -> None:
    """A batch of three."""
    ready(harness, scene)
    scene.before["batch"] = fill(harness, scene).commit().batch


def feed(harness: ServiceHarness, _: Scene) -> None:
    """A batch's whole way: admitted, done, followed, over."""
    harness.maintenance.scheduler.feed()
    claim_and_finish_batch(harness)
    harness.maintenance.scheduler.feed()


def cancel_batch(harness: ServiceHarness, scene: Scene) -> None:
    harness.maintenance.scheduler.feed()
    harness.batches.cancel(TENANT, scene.before["batch"].id)
    harness.maintenance.scheduler.feed()


def delete_batch(harness: ServiceHarness, scene: Scene) -> None:
    harness.maintenance.scheduler.feed()
    harness.batches.delete(TENANT, scene.before["batch"].id)
    harness.maintenance.scheduler.feed()


def delete_webhook(harness: ServiceHarness, _: Scene) -> None:
    for webhook in list(harness.services.webhooks.all(TENANT)):
        harness.services.webhooks.delete(TENANT, webhook.id)


def dispatch(harness: ServiceHarness, scene: Scene) -> None:
    schedule = Schedule(harness.ledger.redis)
    dispatcher = Dispatcher(harness.services.webhooks, schedule, scene.world.sender)
    scene.before["dispatcher"] = dispatcher
    scene.world.deliver(harness)


def lost(prepare: Callable[[ServiceHarness, Scene], None]) -> Callable[[ServiceHarness, Scene], None]:
    """The same after Redis came back empty, a minute later."""

    def emptied(harness: ServiceHarness, scene: Scene) -> None:
        prepare(harness, scene)
        scene.world.redis.flushall()
        scene.world.pass_time(60.0)

    return emptied


def late(prepare: Callable[[ServiceHarness, Scene], None]) -> Callable[[ServiceHarness, Scene], None]:
    """The same when the worker has been gone for a minute."""

    def expired(harness: ServiceHarness, scene: Scene) -> None:
        running(prepare)(harness, scene)
        scene.world.pass_time(60.0)

    return expired


def deleted(harness: ServiceHarness, scene: Scene) -> None:
    """A subject that was deleted while its job ran, which wrote once more since."""
    running(queued)(harness, scene)
    delete(harness, scene)
    harness.claims.store(scene.before["claim"], "1.png", SECRETS[1], content_type="image/png")
    scene.world.pass_time(60.0)


def maintain(harness: ServiceHarness, _: Scene) -> None:
    harness.maintenance.tick()


def full(harness: ServiceHarness, _: Scene) -> None:
    """As many jobs wait as may."""
    for _ in range(harness.ledger.limits.queue_limit):
        harness.new_subject()


def refused(harness: ServiceHarness, scene: Scene) -> None:
    """The queue fills up in the moment between the check and the acceptance."""
    harness.jobs.refuse_when_full = lambda *_: None  # type: ignore[method-assign]
    create(harness, scene)


OPERATIONS = [
    Operation("create a subject", listening, create, lambda h, s: create(h, s, repeated=True)),
    Operation("add photos", ready, add, lambda h, s: add(h, s, repeated=True)),
    Operation("add photos to kept ones", kept, add, lambda h, s: add(h, s, repeated=True)),
    Operation("generate", ready, generate, lambda h, s: generate(h, s, repeated=True)),
    Operation("make a webhook", nothing, make_webhook, lambda h, s: make_webhook(h, s, repeated=True)),
    Operation("make a pack", nothing, make_pack, lambda h, s: make_pack(h, s, repeated=True)),
    Operation("be refused by a full queue", full, refused),
    Operation("commit a personalizing", running(personalizing), commit),
    Operation("commit added photos", running(adding), commit),
    Operation("commit a generation", running(queued), commit),
    Operation("claim and commit", queued, claim_and_finish),
    Operation("fail", running(personalizing), fail),
    Operation("give back", running(queued), give_back),
    Operation("cancel a queued job", queued, cancel),
    Operation("cancel a queued personalizing", personalizing, cancel),
    Operation("cancel added photos", adding, cancel),
    Operation("cancel a running job", running(queued), cancel_running),
    Operation("delete a subject", pictured, delete),
    Operation("delete a subject that is personalized", running(personalizing), delete),
    Operation("delete a subject whose job runs", running(queued), delete),
    Operation("upload a batch", ready, upload),
    Operation("discard a batch", ready, discard),
    Operation("feed a batch", sent, feed),
    Operation("cancel a batch", sent, cancel_batch),
    Operation("delete a batch", sent, delete_batch),
    Operation("delete a webhook", queued, delete_webhook, delete_webhook),
    Operation("deliver to webhooks", running(queued), lambda h, s: (commit(h, s), dispatch(h, s))),
    Operation("restore", lost(queued), maintain),
    Operation("restore a personalizing", lost(personalizing), maintain),
    Operation("take back", late(queued), maintain),
    Operation("erase again", deleted, maintain),
]

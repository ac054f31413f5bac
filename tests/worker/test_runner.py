from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Picture

from core.batches.upload import UploadLimits
from core.errors import StoreUnavailable, SubjectNotFound, SubjectNotReady, WeightsMismatch
from core.hyperdreambooth.formats.exports import Layout
from core.jobs.events import event_key, read_event
from core.records import (
    Consent,
    GenerateRequest,
    GenerateResult,
    Job,
    JobState,
    PictureNote,
    Share,
    Subject,
    SubjectStatus,
    WeightsStage,
)
from core.storage import keys
from core.storage.keys import image_id
from tests.worker.conftest import photo

if TYPE_CHECKING:
    from tests.worker.conftest import WorkerHarness


def pictures_of(worker: WorkerHarness, job: Job) -> list[bytes]:
    result = worker.now(job).result
    assert isinstance(result, GenerateResult)
    return [worker.jobs.image("local", image.id) for image in result.images]


def left_of(worker: WorkerHarness) -> list[str]:
    """The parts of the store that still have something, but for what names no subject."""
    return sorted(key.split("/")[0] for key in worker.store.list("") if not key.startswith(("usage/", "bundles/")))


def test_personalizing_makes_weights_and_says_how(worker: WorkerHarness) -> None:
    subject = worker.ready_subject(seed=7)
    assert subject.status is SubjectStatus.READY
    assert subject.weights is not None
    refined = worker.subjects.weights("local", subject.id)
    assert subject.weights.sha256 == hashlib.sha256(refined).hexdigest()
    assert subject.weights.bytes == len(refined)
    assert worker.subjects.weights("local", subject.id, WeightsStage.PREVIEW) != refined
    assert (subject.bundle, subject.bundle_fingerprint) == ("fake", "fake-1")
    assert (subject.likeness, subject.likeness_by) == (0.5, {"bundle": 0.5})
    assert (subject.kept_step, subject.tries) == (3, 1)
    assert {"finetune", "total"} <= set(subject.seconds)
    assert not [key for key in worker.store.objects if "photos" in key]


def test_the_base_model_is_described_for_the_api(worker: WorkerHarness) -> None:
    put = worker.store.put

    def out_of_order(*_: object, **__: object) -> None:
        worker.store.put = put  # type: ignore[method-assign]
        raise StoreUnavailable

    subject, job = worker.new_subject()
    worker.store.put = out_of_order  # type: ignore[method-assign]
    worker.handle(job)
    assert worker.subjects.get("local", subject.id).status is SubjectStatus.READY
    with pytest.raises(SubjectNotReady, match="base model"):
        worker.services.export_layouts.get("fake-1", "fake-basis")
    worker.handle(worker.generation(subject))
    assert Layout.from_json(worker.services.export_layouts.get("fake-1", "fake-basis")) == worker.engine.layout


def test_several_photos_of_several_sizes_go_in_at_once(worker: WorkerHarness) -> None:
    assert worker.ready_subject(photos=(12, 8)).status is SubjectStatus.READY


def test_more_photos_go_on_from_the_weights_that_are_there(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    before = worker.subjects.weights("local", subject.id)
    preview = worker.subjects.weights("local", subject.id, WeightsStage.PREVIEW)
    begun: list[Any] = []
    personalize = worker.engine.personalize

    def watch(pictures: Any, options: Any, **more: Any) -> Any:
        begun.append((len(pictures), options.start, worker.subjects.weights("local", subject.id)))
        return personalize(pictures, options, **more)

    worker.engine.personalize = watch  # type: ignore[method-assign]
    consent = Consent(at=2.0, version="1")
    _, job = worker.photos.add("local", subject.id, [photo(8), photo(12)], consent=consent)
    worker.handle(job)
    assert begun == [(2, before, before)], "while it is made, the subject has its weights"
    after = worker.subjects.get("local", subject.id)
    assert (after.status, after.refining) == (SubjectStatus.READY, False)
    assert worker.subjects.weights("local", subject.id) != before
    assert worker.subjects.weights("local", subject.id, WeightsStage.PREVIEW) == preview
    assert not [key for key in worker.store.objects if "photos" in key]


def test_a_job_with_more_photos_that_is_canceled_half_way_changes_nothing(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    before = worker.subjects.weights("local", subject.id)
    worker.script_engine(steps=50)
    _, job = worker.photos.add("local", subject.id, [photo(8)], consent=Consent(at=2.0, version="1"))
    worker.at_step(10, lambda: worker.jobs.cancel("local", job.id))
    worker.handle(job)
    assert worker.now(job).state is JobState.CANCELED
    assert worker.subjects.get("local", subject.id).status is SubjectStatus.READY
    assert worker.subjects.weights("local", subject.id) == before


def test_a_picture_says_what_it_is(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    job = worker.generation(
        subject, prompt="пейзаж, a [V] face", seed=5, width=16, height=8, metadata=tuple(PictureNote)
    )
    worker.handle(job)
    (png,) = pictures_of(worker, job)
    with Picture.open(io.BytesIO(png)) as picture:
        assert (picture.size, picture.mode) == ((16, 8), "RGB")
        assert picture.text["Description"] == "пейзаж, a [V] face"  # type: ignore[attr-defined]
        assert picture.text["Comment"] == "made with AI"  # type: ignore[attr-defined]
        assert (picture.text["Seed"], picture.text["Subject"]) == ("5", subject.id)  # type: ignore[attr-defined]
        assert "trainedAlgorithmicMedia" in picture.text["XML:com.adobe.xmp"]  # type: ignore[attr-defined]


def test_the_same_request_gives_the_same_bytes_under_the_same_ids(worker: WorkerHarness) -> None:
    job = worker.generation(worker.ready_subject(), n=2, seed=1)
    accepted = worker.archive.accepted("local", job.id)
    assert accepted is not None
    worker.handle(job)
    first, before = pictures_of(worker, job), worker.now(job).result
    worker.ledger.erase([job.ref])  # as if it had never run
    worker.store.delete_prefix(f"local/jobs/{job.id}/")
    worker.archive.put_accepted(accepted)
    worker.jobs.restore("local", job.id)
    worker.handle(job)
    again = worker.now(job).result
    assert pictures_of(worker, job) == first
    assert isinstance(before, GenerateResult)
    assert isinstance(again, GenerateResult)
    assert [image.id for image in again.images] == [image.id for image in before.images]
    assert [image.seed for image in again.images] == [1, 2]


def test_people_share_a_batch_and_get_their_own_pictures(worker: WorkerHarness) -> None:
    people = [worker.ready_subject(seed=seed) for seed in range(3)]
    alone = []
    for person in people:
        job = worker.generation(person, n=2, seed=10)
        worker.handle(job)
        alone.append(pictures_of(worker, job))
    batched = [worker.generation(person, n=2, seed=10) for person in people]
    assert worker.handle_all() == [3]
    assert worker.calls("generate.begun")[-1]["rows"] == 6
    assert [pictures_of(worker, job) for job in batched] == alone
    assert alone[0] != alone[1]


def blend_of(*shares: tuple[Subject, float]) -> dict[str, Any]:
    return {"blend": tuple(Share(subject_id=subject.id, weight=weight) for subject, weight in shares)}


def test_a_blend_is_made_of_everybodys_weights_and_shares_a_batch(worker: WorkerHarness) -> None:
    one, other = (worker.ready_subject(seed=seed) for seed in (1, 2))
    more, less = ((0.9, 0.1), (0.1, 0.9))
    jobs = [
        worker.generation(one, seed=3, **blend_of((one, mine), (other, yours))) for mine, yours in (more, more, less)
    ]
    jobs.append(worker.generation(one, seed=3))
    assert worker.handle_all() == [4]
    pictures = [pixels_of(pictures_of(worker, job)[0]) for job in jobs]
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) == 3
    assert worker.now(jobs[0]).subject_ids == (one.id, other.id)


def pixels_of(png: bytes) -> bytes:
    with Picture.open(io.BytesIO(png)) as picture:
        return picture.tobytes()


@pytest.mark.parametrize("deleted", [0, 1])
def test_a_running_blend_stops_when_any_of_its_subjects_is_deleted(worker: WorkerHarness, deleted: int) -> None:
    people = [worker.ready_subject(seed=seed) for seed in (1, 2)]
    worker.script_engine(steps=50)
    job = worker.generation(people[0], **blend_of((people[0], 0.5), (people[1], 0.5)))
    worker.at_step(10, lambda: worker.subjects.delete("local", people[deleted].id))
    worker.handle(job)
    (stopped,) = worker.calls("generate.stopped")
    assert int(str(stopped["step"])) <= 12
    assert not list(worker.ledger.redis.scan_iter(f"*{job.id}*"))
    assert not [key for key in worker.store.list("") if key.startswith((f"local/jobs/{job.id}", "pending/"))]


def test_a_blend_that_ends_as_a_subject_goes_leaves_nothing(worker: WorkerHarness) -> None:
    people = [worker.ready_subject(seed=seed) for seed in (1, 2)]
    job = worker.generation(people[0], **blend_of((people[0], 0.5), (people[1], 0.5)))
    put = worker.store.put

    def delete_first(key: str, data: bytes, **more: str) -> None:
        if key.endswith("0.png"):
            worker.subjects.delete("local", people[1].id)
        put(key, data, **more)

    worker.store.put = delete_first  # type: ignore[method-assign,assignment]
    worker.handle(job)
    assert not [key for key in worker.store.list("") if job.id in key and "subject-jobs" not in key]


def test_a_blend_comes_back_when_redis_has_lost_it(worker: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    people = [worker.ready_subject(seed=seed) for seed in (1, 2)]
    job = worker.generation(people[0], **blend_of((people[0], 0.5), (people[1], 0.5)))
    worker.ledger.redis.flushall()
    monkeypatch.setattr("core.jobs.recovery._ACCEPTING_SECONDS", 0.0)
    worker.services.recovery.reconcile()
    assert worker.handle(job) == 1
    assert worker.now(job).state is JobState.SUCCEEDED
    assert worker.now(job).subject_ids == tuple(person.id for person in people)


def test_items_of_a_batch_share_runs_and_wait_for_others(worker: WorkerHarness) -> None:
    one, other = (worker.ready_subject(seed=seed) for seed in (1, 2))
    upload = worker.batches.open_upload("local", UploadLimits(1))
    for index in range(20):
        upload.add(GenerateRequest(subject_id=(one, other)[index % 2].id, prompt="a [V] face", seed=index))
    batch = upload.commit().batch
    worker.services.scheduler().feed()
    urgent = worker.generation(one)
    assert worker.runner.handle(urgent.kind, f"local/{batch.job_id(5)}") == 1
    assert worker.now(urgent).state is JobState.SUCCEEDED
    assert worker.handle_all() == [8, 8, 4]
    worker.services.scheduler().feed()
    state = worker.batches.get("local", batch.id)
    assert set(state.items.states) == {"s"}
    alone = worker.generation(other, seed=7)
    worker.handle(alone)
    (seventh,) = worker.batches.items(state, [7])
    assert seventh.job
    assert pictures_of(worker, alone) == pictures_of(worker, seventh.job)


def test_only_what_can_share_a_batch_is_batched(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    for steps in (4, 4, 5, 4, 5):
        worker.generation(subject, steps=steps)
    assert worker.handle_all() == [3, 2]
    for n in (10, 10, 6):
        worker.generation(subject, n=n)
    assert worker.handle_all() == [2, 1]


def test_a_fault_costs_an_attempt_and_the_next_one_runs_alone(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    jobs = [worker.generation(subject, seed=seed) for seed in range(3)]
    worker.script_engine(fault="raise", fault_runs=1)
    assert worker.handle_all() == [3, 1, 1, 1]
    assert [worker.now(job).state for job in jobs] == [JobState.SUCCEEDED] * 3
    assert [worker.now(job).attempt for job in jobs] == [2] * 3


def test_a_poison_job_is_tried_three_times_and_fails_with_the_reason(worker: WorkerHarness) -> None:
    worker.script_engine(fault="raise")
    subject, job = worker.new_subject()
    while worker.handle(job):
        pass
    assert len(worker.calls("personalize.begun")) == 3
    error = worker.now(job).error
    assert error is not None
    assert error.code == "internal-fault"
    assert "RuntimeError" in error.detail
    assert "must not reach" not in error.detail
    assert worker.subjects.get("local", subject.id).status is SubjectStatus.FAILED


def test_what_cannot_get_better_fails_at_once(worker: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = worker.ready_subject()
    job = worker.generation(subject)

    def refuse(*_: Any, **__: Any) -> None:
        raise WeightsMismatch("Personalize again: the bundle has changed.")

    monkeypatch.setattr(worker.engine, "generate", refuse)
    worker.handle(job)
    found = worker.now(job)
    assert (found.state, found.attempt) == (JobState.FAILED, 1)
    assert found.error is not None
    assert found.error.code == "weights-mismatch"


@pytest.mark.parametrize("what", ["personalize", "generate"])
@pytest.mark.parametrize("step", [4, 17, 40])
def test_cancel_stops_within_two_steps(worker: WorkerHarness, what: str, step: int) -> None:
    subject = worker.ready_subject() if what == "generate" else None
    worker.script_engine(steps=50)
    job = worker.generation(subject) if subject else worker.new_subject()[1]
    asked_at: list[int] = []

    def ask() -> None:
        asked_at.append(worker.now(job).step)
        worker.jobs.cancel("local", job.id)

    worker.at_step(step, ask)
    worker.handle(job)
    (stopped,) = worker.calls(f"{what}.stopped")
    assert int(str(stopped["step"])) - 1 <= asked_at[0] + 2, "steps that were done"
    assert worker.now(job).state is JobState.CANCELED
    assert not [key for key in worker.store.objects if f"/jobs/{job.id}/" in key and key.endswith((".png", ".lidb"))]
    if what == "personalize":
        assert worker.subjects.get("local", job.subject_id).status is SubjectStatus.CANCELED


def at_finetuning(worker: WorkerHarness, read: Callable[[], Any]) -> list[Any]:
    """A list of what `read` returns whenever finetuning begins, from now on."""
    seen: list[Any] = []
    play = worker.engine._play

    def looking(stage: str, *args: Any, **kwargs: Any) -> int:
        if stage == "finetune":
            seen.append(read())
        return play(stage, *args, **kwargs)

    worker.engine._play = looking  # type: ignore[method-assign,assignment]
    return seen


def events_of(worker: WorkerHarness, job: Job) -> list[str]:
    stream: Any = worker.ledger.redis.xrange(event_key(job.ref))
    return [read_event(event_id, fields).type.value for event_id, fields in stream]


def test_a_preview_is_seen_and_used_before_finetuning(worker: WorkerHarness) -> None:
    subject, job = worker.new_subject(seed=7)
    seen = at_finetuning(
        worker, lambda: (worker.now(job).preview, worker.generation(subject, stage=WeightsStage.PREVIEW))
    )
    worker.handle(job)
    ((preview, generation),) = seen
    assert preview.image.id == image_id(job.id, 0)
    with Picture.open(io.BytesIO(worker.jobs.image("local", preview.image.id))) as picture:
        assert (picture.size, picture.info["Comment"], "Description" in picture.info) == ((8, 8), "made with AI", False)
    assert events_of(worker, job)[:5] == ["queued", "running", "progress", "progress", "preview"]
    assert events_of(worker, job).count("preview") == 1
    ready = worker.subjects.get("local", subject.id)
    assert (ready.preview_image, worker.now(job).preview) == (preview.image, preview)
    assert ready.weights is not None
    assert ready.weights.preview_key == keys.weights("local", job.id, worker.now(job).fence, "preview")
    worker.handle(generation)
    assert worker.now(generation).state is JobState.SUCCEEDED


def test_without_a_hypernetwork_there_is_no_preview(worker: WorkerHarness) -> None:
    worker.script_engine(hypernetwork=False)
    subject, job = worker.new_subject()
    worker.handle(job)
    assert "preview" not in events_of(worker, job)
    ready = worker.subjects.get("local", subject.id)
    assert (ready.status, ready.preview_image) == (SubjectStatus.READY, None)
    with pytest.raises(SubjectNotReady):
        worker.generation(subject, stage=WeightsStage.PREVIEW)


def of_attempt(job: Job, fence: int) -> list[str]:
    """Where an attempt puts its preview: the weights and a picture."""
    weights = keys.weights(job.tenant, job.id, fence, "preview")
    return [weights, keys.picture(job.tenant, image_id(job.id, 0), fence)]


def test_each_attempt_makes_its_own_preview(worker: WorkerHarness) -> None:
    """What was asked for with the first one is made with the second one."""
    worker.script_engine(fault="raise", fault_runs=1)
    subject, job = worker.new_subject()
    seen = at_finetuning(
        worker,
        lambda: [worker.now(job).fence, *(worker.store.exists(key) for key in of_attempt(job, worker.now(job).fence))],
    )
    at_finetuning(worker, lambda: seen or asked.append(worker.generation(subject, stage=WeightsStage.PREVIEW)))
    asked: list[Job] = []
    worker.runner._let_in_again = float("inf")  # the fault is that of finetuning
    worker.handle(job)
    assert worker.now(job).preview is None
    worker.handle(asked[0])  # it waits for the second one
    assert worker.now(asked[0]).state is JobState.QUEUED
    while worker.now(job).state is not JobState.SUCCEEDED:
        worker.handle(job)
    (first, *_), (second, *are_there) = seen
    assert first != second
    assert are_there == [True, True]
    assert [worker.store.exists(key) for key in of_attempt(job, first)] == [False, False]
    assert [worker.store.exists(key) for key in of_attempt(job, second)] == [True, True]
    worker.script_engine()
    worker.handle(asked[0])
    assert worker.now(asked[0]).state is JobState.SUCCEEDED


def test_pictures_of_a_preview_that_came_to_nothing_fail_with_the_reason(
    worker: WorkerHarness,
) -> None:
    worker.script_engine(fault="raise")
    subject, job = worker.new_subject()
    asked = at_finetuning(worker, lambda: worker.generation(subject, stage=WeightsStage.PREVIEW))
    worker.runner._let_in_again = float("inf")  # the fault is that of finetuning
    while worker.handle(job):
        pass
    assert worker.now(job).state is JobState.FAILED
    error = worker.now(asked[0]).error
    assert error is not None
    assert error.code == "subject-not-ready"
    assert [key for key in worker.store.objects if f"/jobs/{job.id}/" in key] == [f"local/jobs/{job.id}/outcome.json"]


def test_a_cancel_at_the_last_step_leaves_nothing(worker: WorkerHarness) -> None:
    _, job = worker.new_subject(steps=4)
    worker.at_step(5, lambda: worker.jobs.cancel("local", job.id))  # two of the preview, and then the fourth
    worker.handle(job)
    assert (worker.now(job).state, worker.now(job).step) == (JobState.CANCELED, 4)
    assert not [key for key in worker.store.objects if key.endswith((".png", ".lidb"))]


def test_a_cancel_during_the_preview_leaves_nothing(worker: WorkerHarness) -> None:
    _, job = worker.new_subject()
    preview = worker.engine.preview

    def canceled_meanwhile(*args: Any, **kwargs: Any) -> Any:
        worker.jobs.cancel("local", job.id)
        return preview(*args, **kwargs)

    worker.engine.preview = canceled_meanwhile  # type: ignore[method-assign]
    worker.handle(job)
    assert worker.now(job).state is JobState.CANCELED
    assert events_of(worker, job)[-1] == "canceled"
    assert "preview" not in events_of(worker, job)
    assert not [key for key in worker.store.objects if key.endswith((".png", ".lidb"))]


def test_a_canceled_job_does_not_stop_the_others_of_its_batch(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    first, second = (worker.generation(subject, steps=9, seed=seed) for seed in (1, 2))
    worker.at_step(4, lambda: worker.jobs.cancel("local", first.id))
    assert worker.handle_all() == [2]
    assert worker.now(first).state is JobState.CANCELED
    assert worker.now(second).state is JobState.SUCCEEDED
    assert len(pictures_of(worker, second)) == 1


@pytest.mark.parametrize("what", ["personalize", "generate"])
def test_deletion_wins_over_a_running_job(worker: WorkerHarness, what: str) -> None:
    worker.script_engine(steps=50)
    subject, job = worker.new_subject() if what == "personalize" else (worker.ready_subject(), None)
    job = job or worker.generation(subject)
    worker.at_step(10, lambda: worker.subjects.delete("local", subject.id))
    worker.handle(job)
    (stopped,) = worker.calls(f"{what}.stopped")
    assert int(str(stopped["step"])) <= 12
    assert left_of(worker) == ["erasing", "erasures"]
    assert not list(worker.ledger.redis.scan_iter(f"*{job.id}*"))


def test_deletion_at_the_last_moment_wins_as_well(worker: WorkerHarness) -> None:
    subject, job = worker.new_subject()
    put = worker.store.put

    def delete_first(key: str, data: bytes, **more: str) -> None:
        if key.endswith("refined.lidb"):
            worker.subjects.delete("local", subject.id)
        put(key, data, **more)

    worker.store.put = delete_first  # type: ignore[method-assign,assignment]
    worker.handle(job)
    assert left_of(worker) == ["erasing", "erasures"]


def test_a_batch_goes_on_without_a_subject_that_was_deleted(worker: WorkerHarness) -> None:
    stays, goes = worker.ready_subject(), worker.ready_subject()
    jobs = [worker.generation(stays), worker.generation(goes)]
    worker.store.delete(goes.weights.refined_key)  # type: ignore[union-attr]
    assert worker.handle_all() == [2]
    assert [worker.now(job).state for job in jobs] == [JobState.SUCCEEDED, JobState.FAILED]


def test_a_worker_that_is_told_to_stop_gives_its_job_back_uncounted(worker: WorkerHarness) -> None:
    worker.script_engine(steps=50)
    _, job = worker.new_subject()

    def stop() -> None:
        worker.stop = True

    worker.at_step(10, stop)
    worker.notifier.notified.clear()
    worker.handle(job)
    found = worker.now(job)
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)
    assert worker.notifier.notified == [("personalize", job.ref)]
    assert worker.handle(job) == 0
    assert worker.notifier.notified == [("personalize", job.ref)] * 2
    worker.stop = False
    worker.script_engine()
    assert worker.handle(job) == 1
    assert worker.now(job).state is JobState.SUCCEEDED


def test_a_job_is_not_started_without_its_photo(worker: WorkerHarness) -> None:
    subject, job = worker.new_subject()
    worker.store.delete(subject.photos[0])
    worker.handle(job)
    found = worker.now(job)
    assert found.error is not None
    assert found.error.code == SubjectNotFound.code


def test_pixels_survive_the_store(worker: WorkerHarness) -> None:
    job = worker.generation(worker.ready_subject(), seed=3)
    worker.handle(job)
    with Picture.open(io.BytesIO(pictures_of(worker, job)[0])) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (8, 8, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 1

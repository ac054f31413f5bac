from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Picture

from core.batches.scheduler import BatchScheduler
from core.batches.service import Batches
from core.batches.upload import BatchUpload
from core.errors import StoreUnavailable, SubjectNotFound, SubjectNotReady, WeightsMismatch
from core.hyperdreambooth.formats.exports import Layout
from core.ids import time_of
from core.jobs.events import event_key, read_event
from core.records import (
    Consent,
    GenerateRequest,
    GenerateResult,
    Job,
    JobState,
    Share,
    Subject,
    SubjectStatus,
    WeightsStage,
)
from core.storage.keys import image_id
from core.subjects import export_layouts as layouts
from core.subjects.add_photos import add_photos
from tests.worker.conftest import photo

if TYPE_CHECKING:
    from tests.worker.conftest import Shop


def pictures_of(shop: Shop, job: Job) -> list[bytes]:
    result = shop.now(job).result
    assert isinstance(result, GenerateResult)
    return [shop.jobs.image("local", image.id) for image in result.images]


def left_of(shop: Shop) -> list[str]:
    """The parts of the store that still have something, but for what names nobody."""
    return sorted(key.split("/")[0] for key in shop.store.list("") if not key.startswith(("usage/", "bundles/")))


def test_personalising_makes_weights_and_says_how(shop: Shop) -> None:
    subject = shop.ready_subject(seed=7)
    assert subject.status is SubjectStatus.READY
    assert subject.weights is not None
    refined = shop.jobs.weights("local", subject.id)
    assert subject.weights.sha256 == hashlib.sha256(refined).hexdigest()
    assert subject.weights.bytes == len(refined)
    assert shop.jobs.weights("local", subject.id, WeightsStage.PREVIEW) != refined
    assert (subject.bundle, subject.bundle_fingerprint) == ("fake", "fake-1")
    assert (subject.likeness, subject.likeness_by) == (0.5, {"bundle": 0.5})
    assert (subject.kept_step, subject.tries) == (3, 1)
    assert {"finetune", "total"} <= set(subject.seconds)
    assert not [key for key in shop.store.objects if "photos" in key]


def test_the_base_model_is_described_for_the_api(shop: Shop) -> None:
    put = shop.store.put

    def out_of_order(*_: object, **__: object) -> None:
        shop.store.put = put  # type: ignore[method-assign]
        raise StoreUnavailable

    subject, job = shop.new_subject()
    shop.store.put = out_of_order  # type: ignore[method-assign]
    shop.answer(job)
    assert shop.jobs.subject("local", subject.id).status is SubjectStatus.READY
    with pytest.raises(SubjectNotReady, match="base model"):
        layouts.look_up(shop.store, "fake-1", "fake-basis")
    shop.answer(shop.generation(subject))
    assert Layout.from_json(layouts.look_up(shop.store, "fake-1", "fake-basis")) == shop.engine.layout


def test_several_photos_of_several_sizes_go_in_together(shop: Shop) -> None:
    assert shop.ready_subject(photos=(12, 8)).status is SubjectStatus.READY


def test_more_photos_go_on_from_the_weights_that_are_there(shop: Shop) -> None:
    subject = shop.ready_subject()
    before = shop.jobs.weights("local", subject.id)
    preview = shop.jobs.weights("local", subject.id, WeightsStage.PREVIEW)
    begun: list[Any] = []
    personalize = shop.engine.personalize

    def watch(pictures: Any, options: Any, **more: Any) -> Any:
        begun.append((len(pictures), options.start, shop.jobs.weights("local", subject.id)))
        return personalize(pictures, options, **more)

    shop.engine.personalize = watch  # type: ignore[method-assign]
    consent = Consent(at=2.0, version="1")
    _, job = add_photos(shop.jobs, "local", subject.id, [photo(8), photo(12)], consent=consent)
    shop.answer(job)
    assert begun == [(2, before, before)], "while it is made, the subject has its weights"
    after = shop.jobs.subject("local", subject.id)
    assert (after.status, after.refining) == (SubjectStatus.READY, False)
    assert shop.jobs.weights("local", subject.id) != before
    assert shop.jobs.weights("local", subject.id, WeightsStage.PREVIEW) == preview
    assert not [key for key in shop.store.objects if "photos" in key]


def test_a_job_with_more_photos_that_is_canceled_half_way_changes_nothing(shop: Shop) -> None:
    subject = shop.ready_subject()
    before = shop.jobs.weights("local", subject.id)
    shop.rehearse(steps=50)
    _, job = add_photos(shop.jobs, "local", subject.id, [photo(8)], consent=Consent(at=2.0, version="1"))
    shop.at_step(10, lambda: shop.jobs.cancel("local", job.id))
    shop.answer(job)
    assert shop.now(job).state is JobState.CANCELED
    assert shop.jobs.subject("local", subject.id).status is SubjectStatus.READY
    assert shop.jobs.weights("local", subject.id) == before


def test_a_picture_says_what_it_is(shop: Shop) -> None:
    subject = shop.ready_subject()
    job = shop.generation(subject, prompt="пейзаж, a [V] face", seed=5, width=16, height=8)
    shop.answer(job)
    (png,) = pictures_of(shop, job)
    with Picture.open(io.BytesIO(png)) as picture:
        assert (picture.size, picture.mode) == ((16, 8), "RGB")
        assert picture.text["Description"] == "пейзаж, a [V] face"  # type: ignore[attr-defined]
        assert picture.text["Comment"] == "made with AI"  # type: ignore[attr-defined]
        assert (picture.text["Seed"], picture.text["Subject"]) == ("5", subject.id)  # type: ignore[attr-defined]
        assert "trainedAlgorithmicMedia" in picture.text["XML:com.adobe.xmp"]  # type: ignore[attr-defined]


def test_the_same_request_gives_the_same_bytes_under_the_same_ids(shop: Shop) -> None:
    job = shop.generation(shop.ready_subject(), n=2, seed=1)
    accepted = shop.jobs.archive.accepted("local", job.id)
    assert accepted is not None
    shop.answer(job)
    first, before = pictures_of(shop, job), shop.now(job).result
    shop.ledger.erase([job.ref])  # as if nobody had ever run it
    shop.store.delete_prefix(f"local/jobs/{job.id}/")
    shop.jobs.archive.put_accepted(accepted)
    shop.jobs.restore("local", job.id)
    shop.answer(job)
    again = shop.now(job).result
    assert pictures_of(shop, job) == first
    assert isinstance(before, GenerateResult)
    assert isinstance(again, GenerateResult)
    assert [image.id for image in again.images] == [image.id for image in before.images]
    assert [image.seed for image in again.images] == [1, 2]


def test_people_share_a_batch_and_get_their_own_pictures(shop: Shop) -> None:
    people = [shop.ready_subject(seed=seed) for seed in range(3)]
    alone = []
    for person in people:
        job = shop.generation(person, n=2, seed=10)
        shop.answer(job)
        alone.append(pictures_of(shop, job))
    together = [shop.generation(person, n=2, seed=10) for person in people]
    assert shop.answer_all() == [3]
    assert shop.diary("generate.begun")[-1]["rows"] == 6
    assert [pictures_of(shop, job) for job in together] == alone
    assert alone[0] != alone[1]


def blend_of(*shares: tuple[Subject, float]) -> dict[str, Any]:
    return {"blend": tuple(Share(subject_id=subject.id, weight=weight) for subject, weight in shares)}


def test_a_blend_is_made_of_everybodys_weights_and_shares_a_batch(shop: Shop) -> None:
    one, other = (shop.ready_subject(seed=seed) for seed in (1, 2))
    more, less = ((0.9, 0.1), (0.1, 0.9))
    jobs = [shop.generation(one, seed=3, **blend_of((one, mine), (other, yours))) for mine, yours in (more, more, less)]
    jobs.append(shop.generation(one, seed=3))
    assert shop.answer_all() == [4]
    pictures = [pixels_of(pictures_of(shop, job)[0]) for job in jobs]
    assert pictures[0] == pictures[1]
    assert len(set(pictures)) == 3
    with Picture.open(io.BytesIO(pictures_of(shop, jobs[0])[0])) as picture:
        assert picture.text["Subject"] == f"{one.id}, {other.id}"  # type: ignore[attr-defined]
    assert shop.now(jobs[0]).subject_ids == (one.id, other.id)


def pixels_of(png: bytes) -> bytes:
    with Picture.open(io.BytesIO(png)) as picture:
        return picture.tobytes()


@pytest.mark.parametrize("deleted", [0, 1])
def test_a_running_blend_stops_when_any_of_its_subjects_is_deleted(shop: Shop, deleted: int) -> None:
    people = [shop.ready_subject(seed=seed) for seed in (1, 2)]
    shop.rehearse(steps=50)
    job = shop.generation(people[0], **blend_of((people[0], 0.5), (people[1], 0.5)))
    shop.at_step(10, lambda: shop.jobs.delete_subject("local", people[deleted].id))
    shop.answer(job)
    (stopped,) = shop.diary("generate.stopped")
    assert int(str(stopped["step"])) <= 12
    assert not list(shop.ledger.redis.scan_iter(f"*{job.id}*"))
    assert not [key for key in shop.store.list("") if key.startswith((f"local/jobs/{job.id}", "pending/"))]


def test_a_blend_that_ends_as_a_subject_goes_leaves_nothing(shop: Shop) -> None:
    people = [shop.ready_subject(seed=seed) for seed in (1, 2)]
    job = shop.generation(people[0], **blend_of((people[0], 0.5), (people[1], 0.5)))
    put = shop.store.put

    def delete_first(key: str, data: bytes, **more: str) -> None:
        if key.endswith("0.png"):
            shop.jobs.delete_subject("local", people[1].id)
        put(key, data, **more)

    shop.store.put = delete_first  # type: ignore[method-assign,assignment]
    shop.answer(job)
    assert not [key for key in shop.store.list("") if job.id in key and "subject-jobs" not in key]


def test_a_blend_comes_back_when_redis_has_lost_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    people = [shop.ready_subject(seed=seed) for seed in (1, 2)]
    job = shop.generation(people[0], **blend_of((people[0], 0.5), (people[1], 0.5)))
    shop.ledger.redis.flushall()
    monkeypatch.setattr("worker.maintenance.time_of", lambda name: time_of(name) - 3600)
    shop.maintenance.reconcile()
    assert shop.answer(job) == 1
    assert shop.now(job).state is JobState.SUCCEEDED
    assert shop.now(job).subject_ids == tuple(person.id for person in people)


def test_items_of_a_batch_share_runs_and_wait_for_others(shop: Shop) -> None:
    one, other = (shop.ready_subject(seed=seed) for seed in (1, 2))
    draft = BatchUpload(shop.jobs, "local", open_limit=1)
    for index in range(20):
        draft.add(GenerateRequest(subject_id=(one, other)[index % 2].id, prompt="a [V] face", seed=index))
    batch = draft.commit().batch
    BatchScheduler(shop.jobs).feed()
    urgent = shop.generation(one)
    assert shop.runner.answer(urgent.kind, f"local/{batch.job_id(5)}") == 1
    assert shop.now(urgent).state is JobState.SUCCEEDED
    assert shop.answer_all() == [8, 8, 4]
    BatchScheduler(shop.jobs).feed()
    standing = Batches(shop.jobs).read("local", batch.id)
    assert set(standing.tally.letters) == {"s"}
    alone = shop.generation(other, seed=7)
    shop.answer(alone)
    (seventh,) = Batches(shop.jobs).items(standing, [7])
    assert seventh.job
    assert pictures_of(shop, alone) == pictures_of(shop, seventh.job)


def test_only_what_can_run_together_is_put_together(shop: Shop) -> None:
    subject = shop.ready_subject()
    for steps in (4, 4, 5, 4, 5):
        shop.generation(subject, steps=steps)
    assert shop.answer_all() == [3, 2]
    for n in (10, 10, 6):
        shop.generation(subject, n=n)
    assert shop.answer_all() == [2, 1]


def test_a_fault_costs_an_attempt_and_the_next_one_runs_alone(shop: Shop) -> None:
    subject = shop.ready_subject()
    jobs = [shop.generation(subject, seed=seed) for seed in range(3)]
    shop.rehearse(fault="raise", fault_runs=1)
    assert shop.answer_all() == [3, 1, 1, 1]
    assert [shop.now(job).state for job in jobs] == [JobState.SUCCEEDED] * 3
    assert [shop.now(job).attempt for job in jobs] == [2] * 3


def test_a_poison_job_is_tried_three_times_and_fails_with_the_reason(shop: Shop) -> None:
    shop.rehearse(fault="raise")
    subject, job = shop.new_subject()
    while shop.answer(job):
        pass
    assert len(shop.diary("personalize.begun")) == 3
    error = shop.now(job).error
    assert error is not None
    assert error.code == "internal-fault"
    assert "RuntimeError" in error.detail
    assert "must not reach" not in error.detail
    assert shop.jobs.subject("local", subject.id).status is SubjectStatus.FAILED


def test_what_cannot_get_better_fails_at_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = shop.ready_subject()
    job = shop.generation(subject)

    def refuse(*_: Any, **__: Any) -> None:
        raise WeightsMismatch("Personalise again: the bundle has changed.")

    monkeypatch.setattr(shop.engine, "generate", refuse)
    shop.answer(job)
    found = shop.now(job)
    assert (found.state, found.attempt) == (JobState.FAILED, 1)
    assert found.error is not None
    assert found.error.code == "weights-mismatch"


@pytest.mark.parametrize("what", ["personalize", "generate"])
@pytest.mark.parametrize("step", [4, 17, 40])
def test_cancel_stops_within_two_steps(shop: Shop, what: str, step: int) -> None:
    subject = shop.ready_subject() if what == "generate" else None
    shop.rehearse(steps=50)
    job = shop.generation(subject) if subject else shop.new_subject()[1]
    asked_at: list[int] = []

    def ask() -> None:
        asked_at.append(shop.now(job).step)
        shop.jobs.cancel("local", job.id)

    shop.at_step(step, ask)
    shop.answer(job)
    (stopped,) = shop.diary(f"{what}.stopped")
    assert int(str(stopped["step"])) - 1 <= asked_at[0] + 2, "steps that were done"
    assert shop.now(job).state is JobState.CANCELED
    assert not [key for key in shop.store.objects if f"/jobs/{job.id}/" in key and key.endswith((".png", ".lidb"))]
    if what == "personalize":
        assert shop.jobs.subject("local", job.subject_id).status is SubjectStatus.CANCELED


def at_finetuning(shop: Shop, look: Callable[[], Any]) -> list[Any]:
    """A list of what `look` gives whenever finetuning begins, from now on."""
    seen: list[Any] = []
    play = shop.engine._play

    def looking(stage: str, *args: Any, **kwargs: Any) -> int:
        if stage == "finetune":
            seen.append(look())
        return play(stage, *args, **kwargs)

    shop.engine._play = looking  # type: ignore[method-assign,assignment]
    return seen


def events_of(shop: Shop, job: Job) -> list[str]:
    stream: Any = shop.ledger.redis.xrange(event_key(job.ref))
    return [read_event(event_id, fields).type.value for event_id, fields in stream]


def test_a_preview_is_seen_and_used_before_finetuning(shop: Shop) -> None:
    subject, job = shop.new_subject(seed=7)
    seen = at_finetuning(shop, lambda: (shop.now(job).preview, shop.generation(subject, stage=WeightsStage.PREVIEW)))
    shop.answer(job)
    ((preview, generation),) = seen
    assert preview.image.id == image_id(job.id, 0)
    with Picture.open(io.BytesIO(shop.jobs.image("local", preview.image.id))) as picture:
        assert (picture.size, picture.info["Seed"], picture.info["Description"]) == ((8, 8), "7", "a [V] face")
    assert events_of(shop, job)[:5] == ["queued", "running", "progress", "progress", "preview"]
    assert events_of(shop, job).count("preview") == 1
    ready = shop.jobs.subject("local", subject.id)
    assert (ready.preview_image, shop.now(job).preview) == (preview.image, preview)
    assert ready.weights is not None
    assert ready.weights.preview_key == preview.weights_key
    shop.answer(generation)
    assert shop.now(generation).state is JobState.SUCCEEDED


def test_without_a_hypernetwork_there_is_no_preview(shop: Shop) -> None:
    shop.rehearse(hypernetwork=False)
    subject, job = shop.new_subject()
    shop.answer(job)
    assert "preview" not in events_of(shop, job)
    ready = shop.jobs.subject("local", subject.id)
    assert (ready.status, ready.preview_image) == (SubjectStatus.READY, None)
    with pytest.raises(SubjectNotReady):
        shop.generation(subject, stage=WeightsStage.PREVIEW)


def test_each_attempt_makes_its_own_preview(shop: Shop) -> None:
    """What was asked for with the first one is made with the second one."""
    shop.rehearse(fault="raise", fault_runs=1)
    subject, job = shop.new_subject()
    seen = at_finetuning(
        shop,
        lambda: (shop.now(job).preview, shop.store.exists(shop.now(job).preview.image.key)),  # type: ignore[union-attr]
    )
    at_finetuning(shop, lambda: seen or asked.append(shop.generation(subject, stage=WeightsStage.PREVIEW)))
    asked: list[Job] = []
    shop.answer(job)
    assert shop.now(job).preview is None
    shop.answer(job)
    (first, _), (second, is_there) = seen
    assert first.weights_key != second.weights_key
    assert is_there
    assert not shop.store.exists(first.weights_key)
    assert shop.store.exists(second.image.key)
    shop.rehearse()
    shop.answer(asked[0])
    assert shop.now(asked[0]).state is JobState.SUCCEEDED


def test_pictures_of_a_preview_that_came_to_nothing_fail_with_the_reason(shop: Shop) -> None:
    shop.rehearse(fault="raise")
    subject, job = shop.new_subject()
    asked = at_finetuning(shop, lambda: shop.generation(subject, stage=WeightsStage.PREVIEW))
    while shop.answer(job):
        pass
    assert shop.now(job).state is JobState.FAILED
    shop.rehearse()
    shop.answer(asked[0])
    error = shop.now(asked[0]).error
    assert error is not None
    assert error.code == "subject-not-ready"
    assert [key for key in shop.store.objects if f"/jobs/{job.id}/" in key] == [f"local/jobs/{job.id}/outcome.json"]


def test_a_cancel_at_the_last_step_leaves_nothing(shop: Shop) -> None:
    _, job = shop.new_subject(steps=4)
    shop.at_step(5, lambda: shop.jobs.cancel("local", job.id))  # two of the preview, and then the fourth
    shop.answer(job)
    assert (shop.now(job).state, shop.now(job).step) == (JobState.CANCELED, 4)
    assert not [key for key in shop.store.objects if key.endswith((".png", ".lidb"))]


def test_a_cancel_during_the_preview_leaves_nothing(shop: Shop) -> None:
    _, job = shop.new_subject()
    preview = shop.engine.preview

    def canceled_meanwhile(*args: Any, **kwargs: Any) -> Any:
        shop.jobs.cancel("local", job.id)
        return preview(*args, **kwargs)

    shop.engine.preview = canceled_meanwhile  # type: ignore[method-assign]
    shop.answer(job)
    assert shop.now(job).state is JobState.CANCELED
    assert events_of(shop, job)[-1] == "canceled"
    assert "preview" not in events_of(shop, job)
    assert not [key for key in shop.store.objects if key.endswith((".png", ".lidb"))]


def test_a_canceled_job_does_not_stop_the_others_of_its_batch(shop: Shop) -> None:
    subject = shop.ready_subject()
    first, second = (shop.generation(subject, steps=9, seed=seed) for seed in (1, 2))
    shop.at_step(4, lambda: shop.jobs.cancel("local", first.id))
    assert shop.answer_all() == [2]
    assert shop.now(first).state is JobState.CANCELED
    assert shop.now(second).state is JobState.SUCCEEDED
    assert len(pictures_of(shop, second)) == 1


@pytest.mark.parametrize("what", ["personalize", "generate"])
def test_deletion_wins_over_a_running_job(shop: Shop, what: str) -> None:
    shop.rehearse(steps=50)
    subject, job = shop.new_subject() if what == "personalize" else (shop.ready_subject(), None)
    job = job or shop.generation(subject)
    shop.at_step(10, lambda: shop.jobs.delete_subject("local", subject.id))
    shop.answer(job)
    (stopped,) = shop.diary(f"{what}.stopped")
    assert int(str(stopped["step"])) <= 12
    assert left_of(shop) == ["erasing", "erasures"]
    assert not list(shop.ledger.redis.scan_iter(f"*{job.id}*"))


def test_deletion_at_the_last_moment_wins_as_well(shop: Shop) -> None:
    subject, job = shop.new_subject()
    put = shop.store.put

    def delete_first(key: str, data: bytes, **more: str) -> None:
        if key.endswith("refined.lidb"):
            shop.jobs.delete_subject("local", subject.id)
        put(key, data, **more)

    shop.store.put = delete_first  # type: ignore[method-assign,assignment]
    shop.answer(job)
    assert left_of(shop) == ["erasing", "erasures"]


def test_a_batch_goes_on_without_somebody_who_was_deleted(shop: Shop) -> None:
    stays, goes = shop.ready_subject(), shop.ready_subject()
    jobs = [shop.generation(stays), shop.generation(goes)]
    shop.store.delete(goes.weights.refined_key)  # type: ignore[union-attr]
    assert shop.answer_all() == [2]
    assert [shop.now(job).state for job in jobs] == [JobState.SUCCEEDED, JobState.FAILED]


def test_a_worker_that_is_told_to_stop_gives_its_job_back_uncounted(shop: Shop) -> None:
    shop.rehearse(steps=50)
    _, job = shop.new_subject()

    def stop() -> None:
        shop.stop = True

    shop.at_step(10, stop)
    shop.notifier.notified.clear()
    shop.answer(job)
    found = shop.now(job)
    assert (found.state, found.attempt) == (JobState.QUEUED, 0)
    assert shop.notifier.notified == [("personalize", job.ref)]
    assert shop.answer(job) == 0
    assert shop.notifier.notified == [("personalize", job.ref)] * 2
    shop.stop = False
    shop.rehearse()
    assert shop.answer(job) == 1
    assert shop.now(job).state is JobState.SUCCEEDED


def test_a_job_is_not_started_without_its_photo(shop: Shop) -> None:
    subject, job = shop.new_subject()
    shop.store.delete(subject.photos[0])
    shop.answer(job)
    found = shop.now(job)
    assert found.error is not None
    assert found.error.code == SubjectNotFound.code


def test_pixels_survive_the_store(shop: Shop) -> None:
    job = shop.generation(shop.ready_subject(), seed=3)
    shop.answer(job)
    with Picture.open(io.BytesIO(pictures_of(shop, job)[0])) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (8, 8, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 1

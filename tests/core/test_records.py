from __future__ import annotations

import time

import pytest

from core.ids import is_id, new_id, time_of
from core.records import GenerateRequest, JobState
from core.storage.keys import image_id, job_of_image


def test_ids_are_ours_sorted_by_time_and_never_twice() -> None:
    ids = [new_id("job") for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(is_id(name, "job") for name in ids)
    assert ids[0] < new_id("job") or time_of(ids[0]) == time_of(new_id("job"))
    assert time_of(ids[0]) == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    "name", ["", "job_", "job_../../etc/passwd", "job_" + "I" * 25, "sub_" + "0" * 25, "job_" + "0" * 26]
)
def test_other_things_are_not_ids(name: str) -> None:
    assert not is_id(name, "job")


def test_an_image_is_found_through_its_job() -> None:
    job = new_id("job")
    assert is_id(image_id(job, 12), "img")
    assert job_of_image(image_id(job, 12)) == job


def test_only_the_end_is_final() -> None:
    assert [state for state in JobState if not state.is_final] == [JobState.QUEUED, JobState.RUNNING]


def test_rows_share_a_batch_when_steps_and_size_are_equal() -> None:
    request = GenerateRequest(subject_id="a", prompt="x", steps=10, seed=1)
    other = GenerateRequest(subject_id="b", prompt="y", steps=10, seed=2, guidance_scale=3.0)
    assert request.batch_group == other.batch_group
    assert request.batch_group != other.model_copy(update={"height": 64}).batch_group

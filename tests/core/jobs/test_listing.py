from __future__ import annotations

from itertools import count

import pytest

from core.ids import ALPHABET, new_id
from core.jobs import listing
from core.jobs.listing import Entry, forget, newest_first, note
from core.records import Job, JobKind, JobState
from core.storage import FolderStore, Store
from core.testing import MemoryStore

SUBJECT = new_id("sub")
_moments = count()


def a_job(state: JobState = JobState.QUEUED, kind: JobKind = JobKind.GENERATE) -> Job:
    """Each is a day younger than the one before."""
    stamp = 1_700_000_000_000 + next(_moments) * 24 * 3600 * 1000
    digits = "".join(ALPHABET[(stamp >> (5 * place)) & 31] for place in reversed(range(9)))
    return Job(
        id=f"job_{digits}{new_id('x')[-16:]}",
        tenant="local",
        kind=kind,
        subject_id=SUBJECT,
        state=state,
        created_at=stamp / 1000,
    )


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path) -> Store:
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path)


def ids(store: Store, after: str = "") -> list[str]:
    return [entry.job_id for entry in newest_first(store, "local", after=after)]


def test_the_newest_job_comes_first(store: Store) -> None:
    jobs = [a_job() for _ in range(5)]
    for job in [jobs[index] for index in (2, 0, 4, 1, 3)]:
        note(store, job)
    assert ids(store) == [job.id for job in reversed(jobs)]
    assert ids(store, after=jobs[3].id) == [job.id for job in reversed(jobs[:3])]
    assert ids(store, after=jobs[0].id) == []
    assert list(newest_first(store, "other")) == []


def test_a_name_says_what_the_job_is(store: Store) -> None:
    job = a_job(kind=JobKind.PERSONALIZE)
    note(store, job)
    assert list(newest_first(store, "local")) == [Entry(job.id, JobKind.PERSONALIZE, None)]
    note(store, job.model_copy(update={"state": JobState.FAILED}))
    assert list(newest_first(store, "local")) == [Entry(job.id, JobKind.PERSONALIZE, JobState.FAILED)]


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED])
def test_the_final_name_counts_where_there_are_both(store: Store, state: JobState) -> None:
    first, job, last = a_job(), a_job(), a_job()
    for each in (first, job.model_copy(update={"state": state}), job, last):
        note(store, each)  # as if its writer had died before it removed the open name
    assert [entry.state for entry in newest_first(store, "local")] == [None, state, None]


def test_what_is_forgotten_leaves_no_name(store: Store) -> None:
    stays, goes = a_job(), a_job()
    for job in (stays, goes, goes.model_copy(update={"state": JobState.FAILED})):
        note(store, job)
    forget(store, "local", goes.id)
    assert ids(store) == [stays.id]
    forget(store, "local", stays.id)
    assert list(store.list("")) == []


def test_jobs_of_one_moment_keep_apart(store: Store) -> None:
    job = a_job()
    twin = job.model_copy(update={"id": job.id[:-1] + ("0" if job.id[-1] != "0" else "1")})
    for each in (job, twin):
        note(store, each)
    assert ids(store) == sorted([job.id, twin.id], reverse=True)
    assert listing.OPEN not in {state.value for state in JobState}

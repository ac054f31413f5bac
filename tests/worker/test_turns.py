"""Prompts that come while a subject is personalized."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded

from core.records import Job, JobState

if TYPE_CHECKING:
    from tests.worker.conftest import WorkerHarness


def personalize(worker: WorkerHarness, job: Job) -> int:
    """Do this job, whoever's turn it is."""
    return worker.runner._do(worker.claims.claim(job.kind, job.ref))


def fail_once(worker: WorkerHarness, error: Exception) -> None:
    """The engine's next generation ends with `error`; those after it are as before."""
    generate = worker.engine.generate

    def fail(*args: object, **more: object) -> object:
        worker.engine.generate = generate  # type: ignore[method-assign]
        raise error

    worker.engine.generate = fail  # type: ignore[method-assign,assignment]


def test_a_prompt_waits_for_a_step_of_a_personalization_and_not_for_all(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    _, personalizing = worker.new_subject()
    prompts: list[Job] = []
    worker.script_engine(steps=9)
    worker.at_step(4, lambda: prompts.append(worker.generation(subject)))
    assert personalize(worker, personalizing) == 1
    assert worker.now(prompts[0]).state is JobState.SUCCEEDED
    assert worker.now(personalizing).state is JobState.SUCCEEDED
    order = [entry["event"] for entry in worker.engine.calls()]
    assert order[-4:] == ["personalize.begun", "generate.begun", "generate.done", "personalize.done"]


def test_several_prompts_that_come_in_between_are_one_batch(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    _, personalizing = worker.new_subject()
    worker.at_step(1, lambda: [worker.generation(subject) for _ in range(3)])
    personalize(worker, personalizing)
    assert [call["rows"] for call in worker.calls("generate.begun")] == [3]


def test_a_personalization_goes_on_where_prompts_never_end(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    _, personalizing = worker.new_subject()
    prompts: list[Job] = []
    generate = worker.engine.generate

    def slow(*args: object, **more: object) -> object:
        time.sleep(1.0)
        prompts.append(worker.generation(subject))
        return generate(*args, **more)  # type: ignore[arg-type]

    worker.engine.generate = slow  # type: ignore[method-assign,assignment]
    worker.at_step(1, lambda: worker.generation(subject))
    personalize(worker, personalizing)
    assert len(prompts) == 1
    assert worker.now(personalizing).state is JobState.SUCCEEDED


def test_a_prompt_that_the_engine_fails_with_costs_the_personalization_no_attempt(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    _, personalizing = worker.new_subject()
    prompts: list[Job] = []
    fail_once(worker, RuntimeError())
    worker.at_step(1, lambda: prompts.append(worker.generation(subject)))
    personalize(worker, personalizing)
    assert (worker.now(personalizing).state, worker.now(personalizing).attempt) == (JobState.QUEUED, 0)
    assert (worker.now(prompts[0]).state, worker.now(prompts[0]).attempt) == (JobState.QUEUED, 1)
    personalize(worker, personalizing)
    assert worker.now(personalizing).state is JobState.SUCCEEDED


def test_both_are_known_to_be_held_meanwhile(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    _, personalizing = worker.new_subject()
    prompts: list[Job] = []
    held: list[list[str]] = []
    generate = worker.engine.generate

    def noted(*args: object, **more: object) -> object:
        held.append([claim.ref for claim in worker.runner._shared.claims()])
        return generate(*args, **more)  # type: ignore[arg-type]

    worker.engine.generate = noted  # type: ignore[method-assign,assignment]
    worker.at_step(1, lambda: prompts.append(worker.generation(subject)))
    personalize(worker, personalizing)
    assert held == [[personalizing.ref, prompts[0].ref]]
    assert worker.runner._shared.claims() == []


def test_a_job_that_may_have_brought_a_worker_down_is_not_let_in(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    tried, fresh = worker.generation(subject), worker.generation(subject)
    (held,) = worker.claims.claim(tried.kind, tried.ref)
    worker.claims.give_back(held, counted=True)
    _, personalizing = worker.new_subject()
    personalize(worker, personalizing)
    assert worker.now(fresh).state is JobState.SUCCEEDED
    assert (worker.now(tried).state, worker.now(tried).attempt) == (JobState.QUEUED, 1)


def test_out_of_time_is_the_personalization_and_not_the_prompt(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    _, personalizing = worker.new_subject()
    prompts: list[Job] = []
    fail_once(worker, SoftTimeLimitExceeded())
    worker.at_step(1, lambda: prompts.append(worker.generation(subject)))
    personalize(worker, personalizing)
    assert worker.now(personalizing).state is JobState.FAILED
    assert (worker.now(prompts[0]).state, worker.now(prompts[0]).attempt) == (JobState.QUEUED, 0)


def test_a_personalization_that_is_canceled_meanwhile_lets_the_prompt_end(worker: WorkerHarness) -> None:
    subject = worker.ready_subject()
    _, personalizing = worker.new_subject()
    prompts: list[Job] = []
    generate = worker.engine.generate

    def cancel(*args: object, **more: object) -> object:
        worker.jobs.cancel("local", personalizing.id)
        return generate(*args, **more)  # type: ignore[arg-type]

    worker.engine.generate = cancel  # type: ignore[method-assign,assignment]
    worker.at_step(1, lambda: prompts.append(worker.generation(subject)))
    personalize(worker, personalizing)
    assert worker.now(prompts[0]).state is JobState.SUCCEEDED
    assert worker.now(personalizing).state is JobState.CANCELED

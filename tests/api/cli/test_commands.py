from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import httpx
import pytest
from PIL import Image

from hyperdreambooth.cli.program import main
from hyperdreambooth.client import GenerateOptions
from tests.api.conftest import job_document


@pytest.fixture
def at_once(monkeypatch, personalized, generated):
    """A worker that has done a job by the time it is waited for."""
    from hyperdreambooth.client import Client

    wait = Client.wait

    def work_and_wait(self, job, **options):
        end = personalized if self.job(job).kind == "personalize" else generated
        end(job)
        return wait(self, job, **options)

    monkeypatch.setattr(Client, "wait", work_and_wait)


def test_personalize_prints_the_subjects_id(hdb, me, at_once, services):
    done = hdb("personalize", me, me, "--consent", "--name", "Ada", "--steps", "7", "--class-noun", "man")
    assert done.status == 0
    subject = services.subjects.get("local", done.out.strip())
    assert (subject.name, subject.class_noun, subject.status) == ("Ada", "man", "ready")


def test_more_photos_make_a_new_job(hdb, me, at_once, services, subject_id):
    before = services.subjects.get("local", subject_id)
    done = hdb("photos", subject_id, me, me, "--consent", "--keep-photos", "--steps", "5")
    assert (done.status, done.out) == (0, f"{subject_id}\n")
    after = services.subjects.get("local", subject_id)
    assert (after.job_id != before.job_id, after.photos_sent, len(after.photos)) == (True, 3, 2)


def test_without_waiting_it_is_the_same_id(hdb, me, services):
    done = hdb("personalize", me, "--consent", "--no-wait")
    assert services.subjects.get("local", done.out.strip()).status == "personalizing"


def test_generate_writes_pictures_and_prints_where(hdb, subject_id, at_once):
    done = hdb("generate", subject_id, "a pencil sketch", "-n", "2", "--seed", "5", "-o", "out", "--format", "webp")
    assert done.status == 0
    assert "[V]" in done.err, "the prompt had none, and the service says so"
    files = [Path(line) for line in done.out.splitlines()]
    assert [file.name for file in files] == ["a-pencil-sketch-5.webp", "a-pencil-sketch-6.webp"]
    for file in files:
        with Image.open(file) as picture:
            assert (file.parent, picture.format) == (Path("out"), "WEBP")


def test_a_job_is_displayed_waited_for_and_fetched(hdb, subject_id, generated):
    job = hdb("generate", subject_id, "a [V] face", "--no-wait").out.strip()
    assert hdb("job", job).out == f"{job}  generate  queued  0 before it\n"
    refused = hdb("job", job, "-o", "out")
    assert (refused.status, refused.err) == (
        1,
        "hdb: The job is queued: it has no pictures. Wait for it with --wait.\n",
    )
    generated(job)
    done = hdb("job", job, "--wait", "-o", "out")
    first, file = done.out.splitlines()
    assert first == f"{job}  generate  succeeded"
    assert Path(file).is_file()
    assert Path(file).name.startswith("a-v-face-")


def test_a_running_job_says_how_far_it_is(hdb, subject_id, claim):
    job = hdb("generate", subject_id, "a [V] face", "--no-wait").out.strip()
    claim(job).at("generate", 3, 30)
    assert hdb("job", job).out == f"{job}  generate  running  10 %  generate 3 of 30\n"
    assert hdb("cancel", job).out == f"{job}  generate  running, and was asked to stop\n"


def test_a_queued_job_is_canceled_at_once(hdb, subject_id):
    job = hdb("generate", subject_id, "a [V] face", "--no-wait").out.strip()
    assert hdb("cancel", job).out == f"{job}  generate  canceled\n"
    done = hdb("cancel", job)
    assert done.status == 1
    assert done.err.startswith("hdb: ")


@pytest.fixture
def items(tmp_path, subject_id):
    """A file of two generations and a line that is wrong."""
    lines = [{"custom_id": name, "subject_id": subject_id, "prompt": "a [V] face"} for name in ("one", "two")]
    file = tmp_path / "items.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, {"custom_id": "wrong"}]))
    return str(file)


@pytest.fixture
def worked(services, generated):
    """Does what is left of a batch of two."""

    def work(batch):
        services.scheduler(pass_seconds=60).feed()
        for number in range(2):
            generated(services.batches.get("local", batch).batch.job_id(number))
        services.scheduler(pass_seconds=60).feed()
        return batch

    return work


def test_a_batch_leaves_pictures_and_results(hdb, items, worked):
    batch = worked(hdb("batch", items, "--no-wait").out.strip())
    assert batch.startswith("bat_")
    done = hdb("batch", batch, "-o", "out")
    results, *pictures = done.out.splitlines()
    assert (results, len(pictures)) == ("out/results.jsonl", 2)
    assert all(Path(picture).is_file() for picture in pictures)
    written = [json.loads(line) for line in Path(results).read_text().splitlines()]
    assert [item["status"] for item in written] == ["succeeded", "succeeded", "invalid"]
    assert [item["prompt"] for item in written] == ["a [V] face", "a [V] face", None]
    assert [file for item in written for file in item["files"]] == pictures
    assert done.status == 1
    assert "batch          3 of 3" in done.err
    assert "\nline 3: " in done.err
    assert done.err.endswith("hdb: 1 of 3 items have no pictures; out/results.jsonl says why.\n")


def test_a_batch_can_be_canceled(hdb, items):
    batch = hdb("batch", items, "--no-wait").out.strip()
    assert hdb("cancel", batch).out.startswith(f"{batch}  batch  cancel")


def test_ctrl_c_leaves_a_batch_alone(hdb, items, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hyperdreambooth.client.Client.wait_for_batch", interrupt)
    done = hdb("batch", items)
    assert done.status == 130
    assert done.err.startswith("It goes on: hdb batch bat_")


def test_subjects_are_a_table(hdb, subject_id):
    head, row = hdb("subjects").out.splitlines()
    assert head.split() == ["ID", "STATUS", "NAME", "LIKENESS", "CREATED"]
    assert row.split()[:4] == [subject_id, "ready", "-", "0.50"]


def test_jobs_are_a_table(hdb, subject_id, claim, services):
    job = hdb("generate", subject_id, "a [V] face", "--no-wait").out.strip()
    claim(job).at("generate", 3, 30)
    head, first, second = hdb("jobs").out.splitlines()
    assert head.split() == ["ID", "KIND", "STATUS", "PROGRESS", "SUBJECT", "CREATED"]
    assert first.split()[:3] == [job, "generate", "running"]
    assert "generate 3 of 30" in first
    assert second.split()[1:4] == ["personalize", "succeeded", "-"]
    assert len(hdb("jobs", "-n", "1").out.splitlines()) == 2
    assert len(hdb("jobs", "--status", "succeeded", "--kind", "personalize", "--json").out.splitlines()) == 1
    assert hdb("jobs", "--status", "lost").status == 2


def test_weights_go_into_a_file(hdb, subject_id):
    assert hdb("weights", subject_id).out == f"{subject_id}.refined.lidb\n"
    assert Path(f"{subject_id}.refined.lidb").read_bytes() == b"refined"
    done = hdb("weights", subject_id, "--stage", "preview", "-o", "me.lidb", "--json")
    assert json.loads(done.out) == {"file": "me.lidb", "bytes": 7}
    assert Path("me.lidb").read_bytes() == b"preview"


def test_delete_says_what_is_gone(hdb, subject_id):
    done = hdb("delete", subject_id)
    assert (done.status, done.out) == (0, f"{subject_id} and what its 1 jobs made are erased.\n")
    assert hdb("subjects").out.splitlines()[1:] == []


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (["subjects"], ["subjects", "list"]),
        (["subjects", "--json"], ["subjects", "list", "--json"]),
        (["jobs", "-n", "1"], ["jobs", "list", "-n", "1"]),
        (["batches"], ["batches", "list"]),
    ],
)
def test_a_noun_alone_lists(hdb, subject_id, short, long):
    assert hdb(*short) == hdb(*long)
    assert hdb(*long).status == 0


def test_subjects_have_all_their_verbs(hdb, me, at_once, subject_id):
    made = hdb("subjects", "create", me, "--consent", "--name", "Ada").out.strip()
    assert hdb("subjects", "show", made).out == f"{made}  ready  Ada  likeness 0.50\n"
    assert hdb("subjects", "add-photos", made, me, "--consent").out == f"{made}\n"
    assert hdb("subjects", "weights", made, "-o", "ada.lidb").out == "ada.lidb\n"
    assert hdb("subjects", "delete", made).out.startswith(f"{made} and what its")
    assert json.loads(hdb("subjects", "--json").out)["id"] == subject_id


def test_a_job_that_is_waited_for_leaves_its_pictures(hdb, subject_id, generated):
    job = hdb("generate", subject_id, "a [V] face", "--no-wait").out.strip()
    generated(job)
    done = hdb("jobs", "wait", job, "-o", "out")
    first, file = done.out.splitlines()
    assert first == hdb("jobs", "show", job).out.strip() == f"{job}  generate  succeeded"
    assert Path(file).is_file()


def test_the_events_of_a_job_that_is_over(hdb, subject_id, generated):
    job = hdb("generate", subject_id, "a [V] face", "--no-wait").out.strip()
    generated(job)
    lines = [line.split() for line in hdb("jobs", "events", job).out.splitlines()]
    assert (lines[0][1], lines[-1][1]) == ("queued", "succeeded")
    after = hdb("jobs", "events", job, "--after", lines[-2][0], "--json").out.splitlines()
    assert [json.loads(line)["type"] for line in after] == ["succeeded"]


def test_batches_have_all_their_verbs(hdb, items, worked):
    batch = hdb("batches", "create", items, "--no-wait").out.strip()
    assert hdb("batches", "show", batch).out == f"{batch}  running  3 items, 2 queued, 1 invalid\n"
    head, row = hdb("batches", "list").out.splitlines()
    assert head.split() == ["ID", "STATUS", "OVER", "SUCCEEDED", "CREATED"]
    assert row.split()[:6] == [batch, "running", "1", "of", "3", "0"]
    done = hdb("batches", "results", batch, "--no-wait", "-o", "early")
    assert done.out == "early/results.jsonl\n"
    worked(batch)
    assert len(hdb("batches", "results", batch, "-o", "out").out.splitlines()) == 3
    assert hdb("batches", "delete", batch).out.startswith(f"{batch}, its prompts")
    assert hdb("batches", "show", batch).status == 1


def test_every_option_of_a_generation_is_a_flag():
    values = {int: 7, float: 1.5, str: "rain", Literal: "preview", list: ["seed"]}
    kinds = {name: get_args(hint)[0] for name, hint in get_type_hints(GenerateOptions).items()}
    options = {name: values[get_origin(kind) or kind] for name, kind in kinds.items()}
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(202, json=job_document())

    given = [
        (name, each) for name, value in options.items() for each in (value if isinstance(value, list) else [value])
    ]
    flags = [f"--{name.replace('_', '-')}={value}".replace("--n=", "-n") for name, value in given]
    argv = ["generate", "sub_x", "a [V] face", "--no-wait", *flags]
    assert main(argv, transport=httpx.MockTransport(answer)) == 0
    assert sent == [{"subject_id": "sub_x", "prompt": "a [V] face", **options}]

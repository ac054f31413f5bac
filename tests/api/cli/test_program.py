from __future__ import annotations

import json
import os
import subprocess
import sys

import httpx
import pytest

import hyperdreambooth
from core.errors import NoFace
from hyperdreambooth.cli.program import main

UNKNOWN = "sub_" + "0" * 25


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("dance",),
        ("personalize", "nothing.jpg", "--consent"),
        ("personalize", __file__),
        ("generate", UNKNOWN),
        ("generate", "a=1,b", "a [V] face"),
        ("batch", "nothing.jsonl"),
        ("weights", UNKNOWN, "--format", "pickle"),
        ("subjects", "--url", "http://faces.example:port"),
        ("subjects", "--api-key", "schlüssel"),
        ("keys",),
        ("jobs", "dance"),
        ("jobs", "--json", "show", "job_x"),
        ("batches", "results"),
        ("subjects", "--status", "ready"),
    ],
)
def test_a_wrong_command_line_is_a_2(hdb, argv):
    done = hdb(*argv)
    assert done.status == 2
    assert done.err.startswith("usage: hdb")
    assert done.out == ""


def test_what_the_service_refuses_is_a_1_with_its_reason(hdb, me, finder):
    finder.refusal = NoFace("Send a photo with a face in it.")
    done = hdb("personalize", me, "--consent")
    assert done == (1, "", "hdb: No face was found in the photo.\nSend a photo with a face in it.\n")
    done = hdb("generate", UNKNOWN, "a [V] face")
    assert (done.status, done.err) == (1, f"hdb: There is no such subject.\nThere is no subject {UNKNOWN}.\n")


def test_a_mistake_of_the_service_is_named_for_those_who_run_it(hdb, job_service, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(job_service, "subjects", fail)
    done = hdb("subjects")
    assert done.status == 1
    assert "secret" not in done.err
    assert done.err.splitlines()[-1].startswith("It is req_")


def test_a_service_that_is_not_there_is_a_1(capsys, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    assert main(["subjects"], transport=httpx.MockTransport(refuse)) == 1
    assert capsys.readouterr().err == "hdb: The service cannot be reached.\nIs it running? (Connection refused)\n"


def test_a_job_that_fails_is_a_1(hdb, job_service, claim, me):
    job = job_service.subject("local", hdb("personalize", me, "--consent", "--no-wait").out.strip()).job_id
    held = claim(job)
    held.work.fail(held.assignment, NoFace("Send a photo with a face in it."))
    done = hdb("job", job, "--wait")
    assert done == (1, "", "hdb: Send a photo with a face in it.\n")
    assert hdb("job", job).out == f"{job}  personalize  failed\nSend a photo with a face in it.\n"


def test_ctrl_c_is_a_130_and_says_that_the_job_goes_on(hdb, me, monkeypatch):
    def interrupt(self, job, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hyperdreambooth.client.Client.wait", interrupt)
    done = hdb("personalize", me, "--consent")
    assert (done.status, done.out) == (130, "")
    assert done.err.startswith("It goes on: hdb job job_")


def test_a_file_that_cannot_be_written_is_a_1(hdb, subject_id, tmp_path):
    done = hdb("weights", subject_id, "-o", str(tmp_path / "no" / "where"))
    assert done.status == 1
    assert done.err == f"hdb: {tmp_path / 'no' / 'where'}: No such file or directory\n"


def test_the_address_and_the_key_come_from_flags_or_the_environment(capsys, monkeypatch):
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url.copy_with(path="/", query=None)), request.headers.get("authorization")))
        return httpx.Response(200, json={"subjects": []})

    def run(*argv: str) -> None:
        assert main(argv, transport=httpx.MockTransport(answer)) == 0

    run("subjects")
    monkeypatch.setenv("HDB_URL", "https://faces.example")
    monkeypatch.setenv("HDB_API_KEY", "one")
    run("subjects")
    run("subjects", "--api-key", "two")
    run("--url", "http://other.example", "subjects")
    assert seen == [
        ("http://127.0.0.1:8000/", None),
        ("https://faces.example/", "Bearer one"),
        ("https://faces.example/", "Bearer two"),
        ("http://other.example/", "Bearer one"),
    ]


def test_keys_without_the_service_are_a_sentence(hdb, monkeypatch):
    monkeypatch.setattr("hyperdreambooth.cli.keys.MODULE", "api.elsewhere.keys")
    done = hdb("keys", "list")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("hdb: hdb keys works only beside the service")


def test_the_version_is_the_packages(hdb):
    assert hdb("--version").out == f"{hyperdreambooth.__version__}\n"


def run_python(program: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True, env=environ)


def test_the_program_starts_without_the_queue_and_the_store():
    """They take most of a second, and a command that only makes pictures does not need them."""
    heavy = "{'redis', 'celery', 'boto3', 'fastapi', 'torch', 'numpy'}"
    with run_python(f"import sys, hyperdreambooth.cli.program; print(*{heavy} & {{*sys.modules}})") as running:
        assert running.communicate() == ("\n", "")


def test_output_that_is_not_read_is_no_error():
    program = """if True:
        import sys
        from hyperdreambooth.cli import program, subjects
        subjects.list_all = lambda *_: sys.stdout.write("x" * 10_000_000)
        sys.exit(program.main(["subjects"]))
    """
    with run_python(program) as running:
        assert running.stdout.read(5) == "xxxxx"
        running.stdout.close()
        assert running.stderr.read() == ""


def test_json_is_a_document_a_line(hdb, me):
    made = json.loads(hdb("personalize", me, "--consent", "--no-wait", "--json").out)
    (listed,) = [json.loads(line) for line in hdb("--json", "subjects").out.splitlines()]
    assert listed["id"] == made["id"]

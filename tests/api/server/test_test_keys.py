"""What a key of tests opens: as Stripe has it, all of the API, and nothing that is live."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from api.server.app import create_app
from api.server.dependencies import the_photo_checker
from api.server.keys import main as keys_command
from core.tenants.api_keys import ApiKeys, check_tenant
from worker.fixed_jobs import fixed_runner


@pytest.fixture
def client_of(settings, services, store, finder, decoder):
    """A client with a key of the tenant acme, and the settings it is told."""

    def make(*, test, **changes):
        _, key = ApiKeys(store).create("acme", "ci", test=test)
        app = create_app(settings.model_copy(update=changes), services=services)
        app.state.decoder = decoder
        app.dependency_overrides[the_photo_checker] = lambda: finder
        headers = {"authorization": f"Bearer {key}"}
        return TestClient(app, headers=headers, client=("10.0.0.7", 5), raise_server_exceptions=False)

    return make


def post_photo(client, photo):
    return client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"})


def test_the_key_says_what_it_is_and_lies_beside_the_others(store):
    known, key = ApiKeys(store).create("acme", "ci", test=True)
    assert key.startswith("hdb_test_")
    assert (known.tenant, known.opens) == ("acme", "acme.test")
    assert ApiKeys(store).get(known.id) == known


@pytest.mark.parametrize("name", ["acme.test", ".test", "acme.test.test"])
def test_no_live_tenant_has_the_name_of_one_of_tests(name, capsys, settings, monkeypatch):
    monkeypatch.setenv("HDB_DATA_DIR", str(settings.data_dir))
    assert keys_command(["create", "--tenant", name, "--name", "ci"]) == 1
    assert "small letters" in capsys.readouterr().err
    assert check_tenant("acme-test") == "acme-test"


@pytest.mark.parametrize("change", [("hdb_test_", "hdb_"), ("hdb_test_", "hdb_live_"), ("hdb_test_", "hdb_test_test_")])
def test_a_key_is_not_made_a_live_one_by_its_text(client_of, change):
    client = client_of(test=True)
    assert client.get("/v1/usage").json()["tenant"] == "acme.test"
    client.headers["authorization"] = client.headers["authorization"].replace(*change)
    assert client.get("/v1/usage").status_code == 401


def test_all_of_it_is_answered_at_once(client_of, photo, services, notifier, settings):
    client, runner = client_of(test=True), fixed_runner(services, settings)
    made = post_photo(client, photo)
    assert made.status_code == 202
    subject_id = made.json()["id"]
    assert client.get(f"/v1/jobs/{made.json()['job_id']}").json()["position"] == 0
    assert runner.handle_test() == 1
    assert client.get(f"/v1/subjects/{subject_id}").json()["status"] == "ready"
    asked = client.post("/v1/generations", json={"subject_id": subject_id, "prompt": "a [V] face, mosaic", "n": 2})
    assert runner.handle_test() == 1
    job = client.get(f"/v1/jobs/{asked.json()['id']}").json()
    assert (job["status"], len(job["images"])) == ("succeeded", 2)
    assert client.get(job["images"][0]["url"]).content.startswith(b"\x89PNG")
    assert client.get("/v1/images").json()["images"][0]["prompt"] == "a [V] face, mosaic"
    for kind in ("lidb", "peft", "kohya"):
        assert client.get(f"/v1/subjects/{subject_id}/weights", params={"format": kind}).status_code == 200
    assert client.get("/v1/usage").json()["total"]["pictures"] == 2
    assert client.delete(f"/v1/subjects/{subject_id}").status_code == 202
    assert notifier.notified == []


def test_everything_says_that_it_is_a_test(client_of, photo, services, settings):
    runner = fixed_runner(services, settings)
    for is_test in (True, False):
        client = client_of(test=is_test)
        subject = post_photo(client, photo).json()
        runner.handle_test()
        said = [subject["livemode"], client.get(f"/v1/jobs/{subject['job_id']}").json()["livemode"]]
        if is_test:
            body = {"prompts": ["a [V] face"], "subject_ids": [subject["id"]]}
            said.append(client.post("/v1/batches", json=body).json()["livemode"])
            client.post("/v1/generations", json={"subject_id": subject["id"], "prompt": "a [V] face"})
            runner.handle_test()
            said.append(client.get("/v1/images").json()["images"][0]["livemode"])
        assert set(said) == {not is_test}


def test_neither_mode_sees_the_other(client_of, photo):
    test, live = client_of(test=True), client_of(test=False)
    for one, other in ((test, live), (live, test)):
        subject = post_photo(one, photo).json()
        for path in (f"/v1/subjects/{subject['id']}", f"/v1/jobs/{subject['job_id']}"):
            assert (one.get(path).status_code, other.get(path).status_code) == (200, 404)
        assert subject["id"] not in other.get("/v1/subjects").text
    assert len(test.get("/v1/jobs").json()["jobs"]) == len(live.get("/v1/jobs").json()["jobs"]) == 1


def test_it_is_free(client_of, photo, services, settings):
    """Neither work nor personalizations are counted, of the live key's least of all."""
    limits = {"personalizations_per_hour": 1, "pictures_per_hour": 50}
    test, live = client_of(test=True, **limits), client_of(test=False, **limits)
    runner = fixed_runner(services, settings)
    subjects = [post_photo(test, photo) for _ in range(3)]
    assert [answer.status_code for answer in subjects] == [202, 202, 202]
    while runner.handle_test():
        pass
    body = {"subject_id": subjects[0].json()["id"], "prompt": "a [V] face", "n": 8, "steps": 100}
    assert [test.post("/v1/generations", json=body).status_code for _ in range(2)] == [202, 202]
    assert [post_photo(live, photo).status_code for _ in range(2)] == [202, 429]
    assert live.get("/v1/usage").json()["total"]["pictures"] == 0


def test_checks_of_photos_stay_limited(client_of, photo):
    """They take the same time of the server whoever asks."""
    client = client_of(test=True, personalizations_per_hour=1)
    codes = [post_photo(client, photo).status_code for _ in range(3)]
    codes += [client.post("/v1/photos/check", files={"photo": photo}).status_code for _ in range(8)]
    assert codes == [202] * 3 + [200] * 7 + [429]


def test_a_full_queue_of_tests_refuses_no_live_job(client_of, photo):
    test, live = client_of(test=True), client_of(test=False)
    assert [post_photo(test, photo).status_code for _ in range(4)] == [202, 202, 202, 429]
    assert post_photo(live, photo).status_code == 202


def test_the_command_makes_and_lists_them(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HDB_DATA_DIR", str(tmp_path))
    assert keys_command(["create", "--tenant", "acme", "--name", "ci", "--test"]) == 0
    key = capsys.readouterr().out.strip()
    assert keys_command(["create", "--tenant", "acme", "--name", "shop"]) == 0
    assert keys_command(["list"]) == 0
    table = capsys.readouterr().out
    assert [line.split()[2] for line in table.splitlines()[-2:]] == ["test", "live"]
    identifier = key.split("_")[2]
    assert keys_command(["revoke", identifier]) == 0

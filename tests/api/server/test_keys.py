from __future__ import annotations

import json

import anyio
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

import deploy.local
from api.server import authenticator as module
from api.server.app import create_app
from api.server.errors import TooManyWrongKeys, Unauthorized
from core.errors import SettingsError, StoreUnavailable
from core.log import JsonFormatter
from core.settings import Settings
from core.storage import open_store
from core.tenants.api_keys import ApiKeys
from core.testing import MemoryStore
from hyperdreambooth.cli.program import main


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def outside(settings, services):
    """Another machine."""
    return TestClient(create_app(settings, services=services), "http://faces.example", client=("10.0.0.7", 5))


def test_a_stored_key_authenticates_its_tenant(outside, store):
    _, key = ApiKeys(store).create("acme", "ci")
    assert outside.get("/v1/usage", headers=bearer(key)).json()["tenant"] == "acme"


def test_a_revoked_key_opens_nothing(settings, services, store):
    ring = ApiKeys(store)
    known, key = ring.create("acme", "ci")
    ring.revoke(known.id)
    client = TestClient(create_app(settings, services=services), "http://127.0.0.1:8000", client=("127.0.0.1", 5))
    for headers in (bearer(key), {}):
        refused = client.get("/v1/usage", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"


def test_wrong_keys_open_nothing(outside, store):
    known, key = ApiKeys(store).create("acme", "ci")
    for wrong in (key[:-1], key[:-1] + "x", f"hdb_{known.id}_{'0' * 64}", f"hdb_{'0' * 16}_{key[-64:]}", known.hash):
        assert outside.get("/v1/usage", headers=bearer(wrong)).status_code == 401
    assert outside.get("/v1/usage", headers={"authorization": f"Basic {key}"}).status_code == 401
    assert outside.get("/v1/usage", headers={"authorization": f"bearer  {key}"}).status_code == 200


def test_keys_of_the_environment_stay_the_local_tenants(settings, services, store):
    _, key = ApiKeys(store).create("acme", "ci")
    both = settings.model_copy(update={"api_keys": (SecretStr("one"),)})
    client = TestClient(create_app(both, services=services), client=("10.0.0.7", 5))
    assert client.get("/v1/usage", headers=bearer("one")).json()["tenant"] == "local"
    assert client.get("/v1/usage", headers=bearer(key)).json()["tenant"] == "acme"


def test_revoking_takes_effect_when_the_cache_has_expired():
    now = [0.0]
    ring = ApiKeys(MemoryStore())
    authenticator = module.Authenticator(Settings(), ring, clock=lambda: now[0])
    known, key = ring.create("acme", "ci")
    assert anyio.run(authenticator.caller, f"Bearer {key}", "10.0.0.7").tenant == "acme"
    ring.revoke(known.id)
    now[0] += module.CACHE_SECONDS - 1
    assert anyio.run(authenticator.caller, f"Bearer {key}", "10.0.0.7").tenant == "acme"
    now[0] += 1
    with pytest.raises(Unauthorized):
        anyio.run(authenticator.caller, f"Bearer {key}", "10.0.0.7")


def test_guessing_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(module, "_MAX_CACHED", 5)
    authenticator = module.Authenticator(Settings(), ApiKeys(MemoryStore()))
    for number in range(9):
        with pytest.raises(Unauthorized):
            anyio.run(authenticator.caller, f"Bearer hdb_{number:016x}_{'0' * 64}", "10.0.0.7")
    assert len(authenticator._cache) == 5


def test_a_store_that_does_not_answer_lets_no_one_in(settings, services, monkeypatch):
    def fail(*_, **__):
        raise StoreUnavailable

    app = create_app(settings, services=services)
    monkeypatch.setattr(services.store, "list", fail)
    client = TestClient(app, "http://127.0.0.1:8000", client=("127.0.0.1", 5))
    assert client.get("/v1/models").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_stored_keys_let_the_server_listen(settings, services, store):
    outward = settings.model_copy(update={"api_host": "0.0.0.0"})
    with pytest.raises(SettingsError, match="keys create"):
        create_app(outward, services=services)
    ApiKeys(store).create("acme", "ci")
    create_app(outward, services=services)


def refused(authenticator, key, address):
    with pytest.raises((Unauthorized, TooManyWrongKeys)) as caught:
        anyio.run(authenticator.caller, f"Bearer {key}", address)
    return caught.value


@pytest.mark.parametrize(
    ("guesser", "neighbour", "other"),
    [("10.0.0.7", "10.0.0.7", "10.0.0.8"), ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"), ("", "", "10.0.0.7")],
)
def test_wrong_keys_are_throttled_by_address(guesser, neighbour, other):
    now = [1000.0]
    ring = ApiKeys(MemoryStore())
    known, key = ring.create("acme", "ci")
    _, unseen = ring.create("acme", "ci")
    authenticator = module.Authenticator(Settings(wrong_keys_per_minute=4), ring, clock=lambda: now[0])
    anyio.run(authenticator.caller, f"Bearer {key}", neighbour)
    wrong = [f"hdb_{known.id}_{'0' * 64}", "x", f"hdb_{'1' * 16}_{'0' * 64}", "y"]
    assert [type(refused(authenticator, each, guesser)) for each in wrong] == [Unauthorized] * 4
    answer = refused(authenticator, unseen, neighbour)
    assert isinstance(answer, TooManyWrongKeys), "keys that were never seen are not even tried"
    assert 0 < answer.retry_after <= 15
    assert anyio.run(authenticator.caller, f"Bearer {key}", neighbour).tenant == "acme", "known good keys are served"
    assert anyio.run(authenticator.caller, f"Bearer {unseen}", other).tenant == "acme"
    now[0] += answer.retry_after
    assert type(refused(authenticator, "z", guesser)) is Unauthorized
    assert type(refused(authenticator, "z", guesser)) is TooManyWrongKeys


def test_nought_throttles_no_one():
    authenticator = module.Authenticator(Settings(wrong_keys_per_minute=0), ApiKeys(MemoryStore()))
    assert {type(refused(authenticator, f"{number}", "10.0.0.7")) for number in range(100)} == {Unauthorized}


def test_wrong_keys_are_logged_and_keys_are_not(outside, store, caplog):
    known, key = ApiKeys(store).create("acme", "ci")
    ApiKeys(store).revoke(known.id)
    secrets = [f"hdb_{known.id}_{'0' * 64}", key, "a-guess", f"hdb_{'1' * 16}_{'0' * 64}"]
    for wrong in secrets:
        outside.get("/v1/usage", headers=bearer(wrong))
    lines = [json.loads(JsonFormatter().format(each)) for each in caplog.records if each.message == "key.refused"]
    seen = [(line["address"], line["reason"], line["key_id"]) for line in lines]
    reasons = [("wrong secret", known.id), ("revoked", known.id), ("unknown", ""), ("unknown", "")]
    assert seen == [("10.0.0.7", *reason) for reason in reasons]
    for secret in (*secrets, "0" * 64, key[-64:]):
        assert secret not in json.dumps(lines)


def test_a_guesser_is_answered_with_429(settings, services, store):
    ApiKeys(store).create("acme", "ci")
    app = create_app(settings.model_copy(update={"wrong_keys_per_minute": 3}), services=services)
    client = TestClient(app, "http://faces.example", client=("10.0.0.7", 5))
    answers = [client.get("/v1/usage", headers=bearer(f"guess-{number}")) for number in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert answers[-1].json()["code"] == "too-many-wrong-keys"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HDB_DATA_DIR", str(tmp_path))

    def run(*argv):
        status = main(["keys", *argv])
        return (status, *capsys.readouterr())

    return run


def test_keys_are_made_listed_and_revoked_from_the_command_line(command, tmp_path):
    status, out, said = command("create", "--tenant", "acme", "--name", "ci")
    assert status == 0
    assert "cannot be read again" in said
    key = out.strip()
    ring = ApiKeys(open_store(Settings(data_dir=tmp_path)))
    (known,) = ring.all()
    assert known.tenant == "acme"
    _, listed, _ = command("list")
    assert known.id in listed
    assert key not in listed
    assert command("revoke", known.id)[0] == 0
    assert next(ring.all()).revoked_at
    assert command("list")[1].splitlines()[1].count(":") == 2


def test_mistakes_are_answered_with_a_sentence(command, monkeypatch):
    status, _, said = command("revoke", "nothing")
    assert (status, said) == (1, "hdb: There is no such key.\nThere is no key nothing.\n")
    status, _, said = command("create", "--tenant", "A/B", "--name", "x")
    assert status == 1
    assert "small letters" in said
    monkeypatch.setenv("HDB_STORE", "ftp://x")
    assert command("list")[0] == 1


def test_keys_are_those_of_make_run_without_settings_and_of_the_folder_that_is_said(command, tmp_path, monkeypatch):
    _, _, said = command("create", "--tenant", "acme", "--name", "ci")
    assert f"{(tmp_path / 'store').as_uri()} asks all callers for a key" in said
    monkeypatch.delenv("HDB_DATA_DIR")
    assert Settings().data_dir == deploy.local.parser().parse_args([]).folder

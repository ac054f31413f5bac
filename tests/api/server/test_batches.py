from __future__ import annotations

import json
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from api.server.app import create_app
from api.server.jsonl import MAX_LINE, Lines, add_lines
from api.server.model import Model
from core.batches.upload import UploadLimits
from core.errors import StoreUnavailable
from core.ids import new_id
from core.services import make_services
from core.settings import Settings
from core.storage import FolderStore

PROMPT = "a pencil sketch of a [V] face"


def jsonl(*items):
    return "".join(f"{item if isinstance(item, str) else json.dumps(item)}\n" for item in items).encode()


def post_lines(client, *items, kind="application/jsonl", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/v1/batches", content=jsonl(*items), headers={"content-type": kind, **names})


@pytest.fixture
def feed(services):
    return lambda: services.scheduler(pass_seconds=60).feed()


def results(client, batch_id):
    answer = client.get(f"/v1/batches/{batch_id}/results")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_every_prompt_with_every_subject(client, subject_id, feed, generated):
    body = {
        "prompts": [PROMPT, "a [V] face, oil painting"],
        "subject_ids": [subject_id],
        "items": [{"subject_id": subject_id, "prompt": "a face", "custom_id": "own", "n": 1}],
        "defaults": {"n": 2, "seed": 7},
    }
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert answer.headers["location"] == batch["links"]["self"] == f"/v1/batches/{batch['id']}"
    assert (batch["status"], batch["counts"]["total"], batch["counts"]["queued"]) == ("running", 3, 3)
    feed()
    lines = results(client, batch["id"])
    assert [(line["index"], line["custom_id"], line["status"], line["seed"]) for line in lines] == [
        (0, None, "queued", 7),
        (1, None, "queued", 7),
        (2, "own", "queued", 7),
    ]
    for line in lines:
        generated(line["job_id"])
    feed()
    lines = results(client, batch["id"])
    assert [len(line["images"]) for line in lines] == [2, 2, 1]
    assert client.get(lines[0]["images"][1]["url"]).status_code == 200
    assert client.get(f"/v1/jobs/{lines[0]['job_id']}").json()["batch_id"] == batch["id"]
    done = client.get(f"/v1/batches/{batch['id']}").json()
    assert (done["status"], done["counts"]["succeeded"], done["links"]["cancel"]) == ("completed", 3, None)
    assert done["finished_at"]
    assert done["expires_at"]


@pytest.mark.parametrize("kind", ["application/jsonl", "application/x-ndjson", "Application/JSONL; charset=utf-8"])
def test_a_bad_line_is_told_and_the_rest_is_done(client, subject_id, kind):
    good = {"subject_id": subject_id, "prompt": PROMPT, "seed": 3}
    answer = post_lines(
        client,
        good,
        {**good, "prompt": "", "n": 99, "custom_id": "wrong"},
        "{not json",
        "",
        {**good, "subject_id": new_id("sub"), "custom_id": "who"},
        {**good, "prompt": PROMPT + " " * MAX_LINE},
        {**good, "suject": 1},
        "[]",
        {**good, "custom_id": "last"},
        kind=kind,
    )
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert (batch["counts"]["queued"], batch["counts"]["invalid"]) == (2, 6)
    page = client.get(f"/v1/batches/{batch['id']}/items?status=invalid").json()
    told = [(item["line"], item["error"]["code"]) for item in page["items"]]
    assert told == [
        (2, "invalid-input"),
        (3, "malformed-request"),
        (5, "subject-not-found"),
        (6, "malformed-request"),
        (7, "invalid-input"),
        (8, "invalid-input"),
    ]
    assert {error["field"] for error in page["items"][0]["error"]["errors"]} == {"prompt", "n"}
    assert page["items"][2]["custom_id"] == "who"
    lines = results(client, batch["id"])
    assert [line["index"] for line in lines] == list(range(8))
    assert [line["line"] for line in lines if line["status"] == "queued"] == [1, 9]
    assert lines[-1]["custom_id"] == "last"


def test_blends_can_be_items(client, subject_id):
    blend = [{"subject_id": subject_id, "weight": 1}, {"subject_id": new_id("sub"), "weight": 1}]
    answer = post_lines(client, {"blend": blend, "prompt": PROMPT}, {"blend": [blend[0], blend[0]], "prompt": PROMPT})
    assert (answer.status_code, answer.json()["counts"]["invalid"]) == (202, 1)


def test_when_nothing_can_be_done_it_is_refused(client, store, photo):
    before = set(store.objects)
    unknown = {"subject_id": new_id("sub"), "prompt": PROMPT}
    answer = client.post("/v1/batches", json={"prompts": [PROMPT], "subject_ids": [unknown["subject_id"]]})
    assert (answer.status_code, answer.json()["code"]) == (404, "subject-not-found")
    assert post_lines(client, unknown, unknown).status_code == 404
    answer = post_lines(client, {**unknown, "n": 0})
    assert (answer.status_code, answer.json()["errors"]) == (
        422,
        [{"field": "n", "message": "Input should be greater than or equal to 1"}],
    )
    assert post_lines(client, "{").status_code == 400
    assert post_lines(client, "", "  ").status_code == 422
    assert set(store.objects) == before
    unready = client.post("/v1/subjects", files={"photo": photo}, data={"consent": "true"}).json()["id"]
    assert post_lines(client, {**unknown, "subject_id": unready}).status_code == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, None),
        ({"prompts": [PROMPT]}, None),
        ({"prompts": [], "subject_ids": ["sub_1"]}, "prompts"),
        ({"prompts": [PROMPT] * 101, "subject_ids": ["sub_1"] * 100}, None),
        ({"prompts": [""], "subject_ids": ["sub_1"]}, "prompts.0"),
        ({"items": [{"subject_id": "sub_1", "prompt": PROMPT, "n": 17}]}, "items.0.n"),
        ({"items": [{"subject_id": "sub_1"}], "more": 1}, "items.0.prompt"),
        ({"prompts": [PROMPT], "subject_ids": ["sub_1"], "defaults": {"prompt": "x"}}, "defaults.prompt"),
    ],
)
def test_json_that_does_not_fit_is_refused_as_a_whole(client, store, body, field):
    answer = client.post("/v1/batches", json=body)
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text
    assert not [key for key in store.objects if "batch" in key]


def test_other_bodies(client, store):
    assert client.post("/v1/batches", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    for kind in ("text/plain", "multipart/form-data; boundary=x", ""):
        answer = client.post("/v1/batches", content=b"{}", headers={"content-type": kind})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    big = client.post("/v1/batches", content=b" " * 1048577, headers={"content-type": "application/json"})
    assert big.status_code == 413
    assert post_lines(client, "x" * (32 << 20)).status_code == 413
    assert not [key for key in store.objects if "batch" in key]


def test_too_many(client, subject_id, store):
    answer = post_lines(client, *[{"subject_id": subject_id, "prompt": PROMPT}] * 10_001)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")
    assert "at most 10000" in answer.json()["detail"]
    assert not [key for key in store.objects if "batch" in key]


def test_a_tenant_has_a_number_of_batches(settings, services, subject_id):
    limited = create_app(settings.model_copy(update={"batch_limit": 2}), services=services)
    body = {"prompts": [PROMPT], "subject_ids": [subject_id]}
    with TestClient(limited, "http://127.0.0.1:8000", client=("127.0.0.1", 5)) as client:
        statuses = [client.post("/v1/batches", json=body).status_code for _ in range(3)]
        refused = client.post("/v1/batches", json=body)
    assert statuses == [202, 202, 429]
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("queue-full", "60")


def test_the_same_key_makes_one_batch(client, subject_id, store):
    item = {"subject_id": subject_id, "prompt": PROMPT}
    answers = [post_lines(client, item, idempotency_key="one") for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert len([key for key in store.objects if key.startswith("batches/open/")]) == 1
    other = post_lines(client, item, item, idempotency_key="one")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    json_answers = [
        client.post("/v1/batches", json={"items": [item]}, headers={"idempotency-key": "two"}) for _ in range(2)
    ]
    assert not [key for key in store.objects if "/about/" in key]
    assert json_answers[0].json()["id"] == json_answers[1].json()["id"] != answers[0].json()["id"]
    assert len([key for key in store.objects if key.startswith("batches/open/")]) == 2
    assert len({key.split("/")[2] for key in store.objects if key.startswith("local/batch-items/")}) == 2


def test_of_many_at_once_with_one_key_one_makes_a_batch(client, subject_id, store):
    items = [{"subject_id": subject_id, "prompt": PROMPT, "seed": n} for n in range(120)]
    with ThreadPoolExecutor(6) as senders:
        answers = list(senders.map(lambda _: post_lines(client, *items, idempotency_key="same"), range(6)))
    assert {(answer.status_code, answer.json()["id"]) for answer in answers} == {(202, answers[0].json()["id"])}
    assert len({key.split("/")[2] for key in store.objects if key.startswith("local/batch-items/")}) == 1
    assert len([key for key in store.objects if "/subject-batches/" in key]) == 1
    assert len([key for key in store.objects if key.startswith("batches/open/")]) == 1


def test_batches_are_listed_newest_first(client, subject_id):
    body = {"prompts": [PROMPT], "subject_ids": [subject_id]}
    ids = [client.post("/v1/batches", json=body).json()["id"] for _ in range(3)]
    first = client.get("/v1/batches?limit=2").json()
    assert [batch["id"] for batch in first["batches"]] == sorted(ids)[::-1][:2]
    second = client.get(f"/v1/batches?limit=2&cursor={first['next_cursor']}").json()
    assert ([batch["id"] for batch in second["batches"]], second["next_cursor"]) == (sorted(ids)[:1], None)
    assert client.get("/v1/batches?cursor=x").json()["field"] == "cursor"


def test_reading_again_costs_nothing(client, subject_id, services, feed):
    batch = client.post("/v1/batches", json={"prompts": [PROMPT], "subject_ids": [subject_id]}).json()
    url = batch["links"]["self"]
    first = client.get(url)
    assert first.headers["retry-after"] == "5"
    again = client.get(url, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.headers["retry-after"]) == (304, "5")
    client.post(f"{url}/cancel")
    feed()
    last = client.get(url, headers={"if-none-match": first.headers["etag"]})
    assert (last.status_code, last.json()["status"], "retry-after" in last.headers) == (200, "canceled", False)


def test_items_a_page_at_a_time(client, subject_id):
    batch = post_lines(client, *[{"subject_id": subject_id, "prompt": PROMPT, "seed": n} for n in range(130)]).json()
    url, seen, cursor = batch["links"]["items"], [], ""
    while cursor is not None:
        page = client.get(f"{url}?limit=60&cursor={cursor}").json()
        seen += [item["seed"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == list(range(130))
    for wrong in ("x", "-1", "1234567", "٣"):
        assert client.get(url, params={"cursor": wrong}).json()["field"] == "cursor"
    assert client.get(f"{url}?status=odd").status_code == 422
    assert client.get(f"{url}?cursor=99999").json() == {"items": [], "next_cursor": None}


def test_cancel_and_delete(client, subject_id, feed):
    batch = client.post("/v1/batches", json={"prompts": [PROMPT], "subject_ids": [subject_id]}).json()
    url = batch["links"]["self"]
    answer = client.post(f"{url}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "canceling")
    assert client.post(f"{url}/cancel").status_code == 202
    feed()
    over = client.post(f"{url}/cancel")
    assert (over.status_code, over.json()["code"]) == (409, "batch-over")
    deleted = client.delete(url)
    assert (deleted.status_code, deleted.json()["batch_id"]) == (202, batch["id"])
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/items"), ("GET", "/results")):
        gone = client.request(method, url + path)
        assert (gone.status_code, gone.json()["code"]) == (404, "batch-not-found")
    assert client.get("/v1/batches").json()["batches"] == []


def test_deleting_a_subject_takes_its_pictures_out_of_the_results(client, subject_id, feed, generated):
    batch = post_lines(client, {"subject_id": subject_id, "prompt": PROMPT, "custom_id": "ada"}).json()
    feed()
    generated(results(client, batch["id"])[0]["job_id"])
    feed()
    assert results(client, batch["id"])[0]["images"]
    client.delete(f"/v1/subjects/{subject_id}")
    for _ in range(2):
        (line,) = results(client, batch["id"])
        assert (line["status"], line["images"], line["error"]["code"]) == ("failed", None, "subject-not-found")
        feed()
    assert client.get(f"/v1/batches/{batch['id']}").json()["counts"]["failed"] == 1


def test_results_that_cannot_be_read_are_a_problem(client, subject_id, store, monkeypatch):
    batch = client.post("/v1/batches", json={"prompts": [PROMPT], "subject_ids": [subject_id]}).json()
    get = store.get

    def failing(key):
        if key.endswith(".jsonl"):
            raise StoreUnavailable
        return get(key)

    monkeypatch.setattr(store, "get", failing)
    answer = client.get(batch["links"]["results"])
    assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")


def test_lines_are_cut_wherever_the_pieces_end():
    text = b"\n{1}\r\n" + b"x" * (MAX_LINE + 1) + b"\n  \n{2}\n{3}"
    for size in (1, 2, 7, 1000, len(text)):
        lines, found = Lines(), []
        for start in range(0, len(text), size):
            found += lines.push(text[start : start + size])
        found += lines.end()
        assert found == [(2, b"{1}"), (3, None), (5, b"{2}"), (6, b"{3}")]


def test_a_large_body_is_never_in_memory(ledger, notifier, store, subject_id, tmp_path):
    """10 MB in 5,000 lines: what is held of it at a time is less than a tenth."""
    document = store.get(f"local/subjects/{subject_id}/subject.json")
    services = make_services(FolderStore(tmp_path), ledger, notifier)
    services.store.put(f"local/subjects/{subject_id}/subject.json", document)
    item = {"subject_id": subject_id, "prompt": "a [V] face " + "é" * 900, "negative_prompt": "é" * 50}
    line = json.dumps(item).ljust(2100).encode() + b"\n"
    left = 5000

    async def receive():
        nonlocal left
        left -= 50
        return {"type": "http.request", "body": line * 50, "more_body": left > 0}

    request = Request({"type": "http", "headers": []}, receive)
    upload = services.batches.open_upload("local", UploadLimits(5))
    tracemalloc.start()
    anyio.run(add_lines, request, upload, Model("any", None))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 << 20
    assert services.batches.get("local", upload.commit().batch.id).items.counts["queued"] == 5000


def test_a_body_that_breaks_off_leaves_nothing(settings, services, store, subject_id):
    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    sent = []
    before = set(store.objects)
    headers = [(b"content-type", b"application/jsonl"), (b"host", b"127.0.0.1"), (b"transfer-encoding", b"chunked")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/batches",
        "raw_path": b"/v1/batches",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 5),
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
    }
    anyio.run(create_app(settings, services=services), scope, receive, send)
    assert set(store.objects) == before
    assert sent[0]["status"] == 400


def test_the_settings():
    assert (Settings().batch_window, Settings().batch_limit, Settings().batch_kept_days) == (64, 20, 30)
    assert re.fullmatch(r"bat_[0-9a-z]{25}", new_id("bat"))


def test_other_methods_are_told_which_there_are(client):
    for path, methods in (("", "GET, POST"), ("/bat_1", "DELETE, GET"), ("/bat_1/cancel", "POST")):
        answer = client.request("OPTIONS", f"/v1/batches{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def test_json_has_one_kind_of_number(client, subject_id):
    item = {"subject_id": subject_id, "prompt": PROMPT, "seed": 3.0, "n": 2.0, "width": 64.0}
    batch = client.post("/v1/batches", json={"items": [item]})
    assert (batch.status_code, results(client, batch.json()["id"])[0]["seed"]) == (202, 3)
    assert client.post("/v1/batches", json={"items": [{**item, "seed": 3.5}]}).json()["field"] == "items.0.seed"


def test_items_are_checked_as_generations_are(client, subject_id):
    """A size that the model cannot make is invalid alone; what it does not hear is with the item."""
    asked = {"subject_id": subject_id, "prompt": "a [V] face"}
    wrong = client.get("/v1/models").json()["models"][0]["limits"]["side_min"] + 8
    lines = [asked, {**asked, "width": wrong, "custom_id": "wide"}, {**asked, "prompt": "a (big:1.2) [V] face"}]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    made = client.post("/v1/batches", content=body, headers={"content-type": "application/jsonl"}).json()
    first, wide, weighted = client.get(made["links"]["items"]).json()["items"]
    assert (first["status"], first["warnings"]) == ("queued", [])
    assert (wide["status"], wide["custom_id"], wide["error"]["errors"][0]["field"]) == ("invalid", "wide", "width")
    assert [(each["code"], each["words"]) for each in weighted["warnings"]] == [("syntax-ignored", ["(big:1.2)"])]

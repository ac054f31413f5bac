"""Forms as browsers, curl and other programs send them, on every route that takes one."""

from __future__ import annotations

import json

import pytest

from api.server.app import create_app
from core.settings import Settings

MULTIPART = "multipart/form-data"
FORMS = {
    f"{method} {path}": operation["requestBody"]["content"][MULTIPART]["schema"]["properties"]
    for path, methods in create_app(Settings()).openapi()["paths"].items()
    for method, operation in methods.items()
    if MULTIPART in operation.get("requestBody", {}).get("content", {})
}
every_form = pytest.mark.parametrize("route", FORMS)


@pytest.fixture
def send(client, photo, subject_id):
    """Sends a form with a photo to a route, and with consent where it is asked for."""

    def send(route, fields, **files):
        method, _, path = route.partition(" ")
        data = ({"consent": "true"} if "consent" in FORMS[route] else {}) | fields
        return client.request(method, path.format(subject_id=subject_id), data=data, files={"photo": photo} | files)

    return send


def booleans(route):
    return [name for name, field in FORMS[route].items() if field.get("type") == "boolean"]


@every_form
@pytest.mark.parametrize("yes", ["true", "True", "TRUE", "1", "on", "yes"])
def test_yes_as_programs_write_it(send, route, yes):
    answer = send(route, dict.fromkeys(booleans(route), yes))
    assert answer.status_code < 300, answer.text


@every_form
@pytest.mark.parametrize("no", ["false", "False", "0", "off", "no"])
def test_no_as_programs_write_it(send, route, no):
    optional = [name for name in booleans(route) if name != "consent"]
    assert send(route, dict.fromkeys(optional, no)).status_code < 300
    if "consent" in FORMS[route]:
        refused = send(route, {"consent": no})
        assert (refused.status_code, refused.json()["field"]) == (422, "consent")
        assert "Send true" in refused.json()["detail"]


@every_form
def test_other_words_are_neither(send, route):
    for name in booleans(route):
        refused = send(route, {name: "maybe"})
        assert (refused.status_code, refused.json()["field"]) == (422, name)


@every_form
def test_an_empty_optional_field_is_no_field(send, route):
    optional = {name: "" for name in FORMS[route] if name not in ("photo", "consent")}
    answer = send(route, optional, attachment=("", b""))
    assert answer.status_code < 300, answer.text


@every_form
def test_an_empty_field_that_is_needed_is_missing(send, route, client):
    refused = send(route, {}, photo=("", b""))
    assert (refused.status_code, refused.json()["field"]) == (422, "photo")
    if "consent" in FORMS[route]:
        refused = send(route, {"consent": ""})
        assert (refused.status_code, refused.json()["field"]) == (422, "consent")


with_options = pytest.mark.parametrize("route", [route for route, fields in FORMS.items() if "options" in fields])
SENT = [
    {"options": '{"steps": 20, "rank": 2, "seed": 5}'},
    {"options.steps": "20", "options.rank": "2", "options.seed": "5"},
    {"options": '{"steps": 20}', "options.rank": "2", "options.seed": "5"},
    {"options": "", "options.steps": "20", "options.rank": "2", "options.seed": "5"},
]


@with_options
@pytest.mark.parametrize("fields", SENT, ids=json.dumps)
def test_options_as_json_and_as_fields_of_their_own(send, route, fields, archive):
    answer = send(route, fields)
    assert answer.status_code == 202, answer.text
    request = archive.accepted("local", answer.json()["job_id"]).request
    assert (request.steps, request.rank, request.seed) == (20, 2, 5)


@with_options
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"options.steps": "many"}, "options.steps"),
        ({"options.steps": "1000"}, "options.steps"),
        ({"options.speed": "1"}, "options.speed"),
        ({"options.": "1"}, "options."),
        ({"options": '{"steps": 20}', "options.steps": "20"}, "options.steps"),
    ],
)
def test_wrong_options_are_named(send, route, fields, field, store):
    before = dict(store.objects)
    refused = send(route, fields)
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert store.objects == before

"""Every screen and state, light and dark, from a telephone to a wide screen: nothing that axe-core finds fault with."""

from __future__ import annotations

import json

import pytest

from core.ids import new_id
from tests.studio.conftest import AXE, Studio

pytestmark = [pytest.mark.process, pytest.mark.slow]
WIDTHS = (360, 768, 1440)
THEMES = ("light", "dark")
JOB = new_id("job")


@pytest.fixture(scope="module")
def subject(browser, service, face) -> str:
    """A person with pictures."""
    context = browser.new_context()
    studio = Studio(context.new_page(), service)
    subject = studio.begin(face, "Noa")
    studio.ready()
    studio.page.get_by_role("button", name="Make 4 pictures").click()
    studio.page.locator(".sheet .frame img.is-there").nth(3).wait_for()
    context.close()
    return subject


def new(studio, subject, photos):
    studio.open("new")
    studio.page.wait_for_selector(".samples img")


def photos_accepted_and_refused(studio, subject, photos):
    studio.open("new")
    studio.add_photos(*photos)
    studio.page.wait_for_selector(".photo.is-accepted")
    studio.page.wait_for_selector(".photo.is-refused")


def person(studio, subject, photos):
    studio.open(f"person/{subject}")
    studio.page.wait_for_selector(".sheet .frame img.is-there")
    for summary in studio.page.locator("details summary").all():
        summary.click()


def large_view(studio, subject, photos):
    studio.open(f"person/{subject}")
    studio.page.locator(".sheet .frame").first.click()
    studio.page.wait_for_selector(".credentials dd")
    studio.page.get_by_text("As code").click()
    studio.page.get_by_label("Compare with").select_option(index=1)
    studio.page.wait_for_selector(".compare img")


def people(studio, subject, photos):
    studio.open("people")
    studio.page.wait_for_selector(".person-card img")


def deletion(studio, subject, photos):
    people(studio, subject, photos)
    studio.page.get_by_role("button", name="Delete: Noa").click()
    studio.page.wait_for_selector("dialog")


def pictures(studio, subject, photos):
    studio.open("pictures")
    studio.page.wait_for_selector(".sheet .frame img.is-there")


def nothing_found(studio, subject, photos):
    pictures(studio, subject, photos)
    studio.page.get_by_label("Search in prompts").fill("marble")
    studio.page.wait_for_selector(".empty")


def activity(studio, subject, photos):
    studio.open("activity")
    studio.page.wait_for_selector(".line")
    studio.page.wait_for_selector(".figures")


def service_gone(studio, subject, photos):
    studio.open("people")
    studio.allowed = ("ERR_FAILED", "Failed to load")
    studio.page.route("**/v1/**", lambda route: route.abort())
    studio.page.route("**/readyz", lambda route: route.abort())
    studio.page.get_by_role("link", name="Activity").click()
    studio.page.wait_for_selector(".banner")


def key_asked_for(studio, subject, photos):
    studio.allowed = ("401",)
    problem = {"code": "unauthorized", "title": "no", "detail": "no", "status": 401, "type": "", "request_id": "r"}
    studio.page.route("**/v1/**", lambda route: route.fulfill(status=401, body=json.dumps(problem)))
    studio.open("people")
    studio.page.wait_for_selector("dialog input")


def nothing_there(studio, subject, photos):
    studio.open("nowhere")


def queue_full(studio, subject, photos):
    studio.allowed = ("429",)
    problem = {"code": "queue-full", "title": "Full", "detail": "Full.", "status": 429, "type": "", "request_id": "r"}
    studio.page.route(
        "**/v1/generations",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "600"}, body=json.dumps(problem)),
    )
    studio.open(f"person/{subject}")
    studio.page.get_by_role("button", name="Make 4 pictures").click()
    studio.page.get_by_text("The queue is full. Trying again in").wait_for()


def job_failed(studio, subject, photos):
    script = studio.service.folder / "fake-engine.json"
    script.write_text('{"fault": "raise"}')
    studio.open(f"person/{subject}")
    studio.page.get_by_role("button", name="Make 4 pictures").click()
    studio.page.get_by_text("The worker failed with RuntimeError.").wait_for()
    script.unlink()


def camera(studio, subject, photos):
    studio.page.context.grant_permissions(["camera"])
    studio.open("new")
    studio.page.get_by_role("button", name="Use the camera").click()
    studio.page.get_by_role("button", name="Take the photo", disabled=False).wait_for()


def camera_refused(studio, subject, photos):
    studio.page.add_init_script("navigator.mediaDevices.getUserMedia = async () => { throw new Error('denied') }")
    studio.open("new")
    studio.page.get_by_role("button", name="Use the camera").click()
    studio.page.get_by_text("The camera cannot be used").wait_for()


def receipt(studio, subject, photos):
    deletion(studio, subject, photos)
    body = {"subject_id": subject, "deleted_at": "2026-01-01T00:00:00Z", "job_ids": [JOB]}
    studio.page.route(f"**/v1/subjects/{subject}", lambda route: route.fulfill(status=202, body=json.dumps(body)))
    studio.page.get_by_role("button", name="Delete for good").click()
    studio.page.wait_for_selector(".receipt")


def with_test_key(studio, subject, photos):
    studio.page.add_init_script("sessionStorage.setItem('hdb-key', 'hdb_test_0')")
    studio.open("people")
    studio.page.get_by_text("Test key", exact=True).wait_for()


STATES = [
    new,
    photos_accepted_and_refused,
    person,
    large_view,
    people,
    deletion,
    pictures,
    nothing_found,
    activity,
    service_gone,
    key_asked_for,
    nothing_there,
    queue_full,
    job_failed,
    camera,
    camera_refused,
    receipt,
    with_test_key,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_axe_finds_nothing_and_nothing_sticks_out(studio, subject, face, no_face, state):
    page = studio.page
    page.emulate_media(reduced_motion="reduce")
    state(studio, subject, (face, no_face))
    faults = []
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(120)
            if page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
                faults.append(f"{theme} {width}: wider than the window")
            page.evaluate(AXE.read_text())
            found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
            faults += [
                f"{theme} {width}: {each['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
                for each in found["violations"]
                for node in each["nodes"][:3]
            ]
    assert faults == []

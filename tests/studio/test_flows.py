"""What one can do in the studio, done in a browser against the service."""

from __future__ import annotations

import json
import zipfile

import pytest

from core.settings import Settings
from core.storage import open_store
from core.tenants.api_keys import ApiKeys
from deploy.local import LocalService
from tests.harness import FAKE
from tests.studio.conftest import Studio

KEY = "4f1c2ab09d3e5f67a8b9c0d1e2f3a4b5"

pytestmark = [pytest.mark.process, pytest.mark.slow]


def test_from_a_photo_to_a_downloaded_picture(studio, face, tmp_path):
    studio.begin(face, "Noa")
    page = studio.page
    page.wait_for_selector(".portrait img.is-there")
    studio.ready()
    page.locator(".count-field select").select_option("2")
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_role("button", name="pencil sketch").click()
    page.get_by_role("button", name="Make 2 pictures").click()
    page.wait_for_selector(".sheet .frame img.is-there")
    studio.settle()
    assert page.locator(".sheet .edge").all_inner_texts()[0].split()[-1] == "7"
    page.locator(".sheet .frame").first.click()
    assert page.locator(".large .lead").inner_text() == "a pencil sketch of a [V] face"
    page.get_by_text("made with AI", exact=True).wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    file = tmp_path / "picture.png"
    download.value.save_as(file)
    assert file.read_bytes()[1:4] == b"PNG"
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".large figcaption:has-text('Seed 8')")
    page.get_by_label("Compare with").select_option("photo")
    page.get_by_label("How much of each is seen").fill("80")
    page.get_by_role("button", name="Again with this seed").click()
    assert page.get_by_label("Seed", exact=True).input_value() == "8"
    studio.open("pictures")
    page.wait_for_selector(".sheet .frame img.is-there")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all").click()
    whole = tmp_path / "pictures.zip"
    download.value.save_as(whole)
    with zipfile.ZipFile(whole) as pictures:
        assert pictures.testzip() is None
        assert all(pictures.read(name)[1:4] == b"PNG" for name in pictures.namelist())


def test_a_photo_without_a_face_is_refused_with_advice(studio, no_face):
    page = studio.open("new")
    studio.add_photos(no_face)
    page.wait_for_selector(".photo.is-refused")
    assert "No face was found" in page.locator(".reasons").inner_text()
    assert "upright and well lit" in page.locator(".reasons").inner_text()
    assert page.get_by_role("button", name="Begin").is_disabled()
    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector(".drop:not(.is-small)")


def test_nothing_is_sent_without_consent_and_two_photos_make_one_person(studio, face, other_face):
    sent = []
    studio.page.on("request", lambda request: sent.append((request.method, request.url.partition("/v1")[2])))
    page = studio.open("new")
    studio.add_photos(face, other_face)
    page.locator(".photo.is-accepted").nth(1).wait_for()
    page.get_by_role("button", name="Begin").click()
    assert "without that person's consent" in page.get_by_role("alert").inner_text()
    assert ("POST", "/subjects") not in sent
    page.get_by_label("has agreed").check()
    page.get_by_role("button", name="Begin").click()
    studio.ready()
    assert "2 photos" in page.locator(".facts").inner_text()


def test_two_people_are_blended(studio, face, service):
    studio.begin(face, "One")
    studio.ready()
    studio.begin(face, "Two")
    studio.ready()
    page = studio.page
    page.get_by_text("More options").click()
    page.get_by_label("Add a person").select_option(label="One")
    page.get_by_label("How much of One").fill("0.5")
    page.locator(".count-field select").select_option("1")
    page.get_by_role("button", name="Make a picture").click()
    page.locator(".sheet .frame img.is-there").first.click()
    assert "Two + One" in page.locator(".large .facts-list").first.inner_text()


def test_a_pack_runs_as_a_batch_and_its_pictures_arrive(studio, face):
    studio.begin(face, "Packed")
    studio.ready()
    page = studio.page
    page.get_by_text("Style packs").click()
    page.get_by_role("button", name="Keep as a pack").click()
    page.get_by_label("Name of the pack").fill("Two")
    page.get_by_label("Prompts, one a line").fill("a cartoon of a [V] face\na [V] face, oil painting")
    page.get_by_role("button", name="Save the pack").click()
    page.get_by_role("button", name="Two: Make all 2").click()
    page.locator(".sheet .frame img.is-there").nth(1).wait_for()
    page.get_by_role("button", name="Delete the pack Two").click()
    page.get_by_role("button", name="Two: Make all 2").wait_for(state="detached")
    studio.open("activity")
    page.get_by_text("2 of 2").wait_for()


def test_a_job_is_canceled_and_a_person_deleted_with_a_receipt(studio, face, script):
    script(step_seconds=0.5, steps=100)
    subject = studio.begin(face, "Gone")
    page = studio.page
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Start over").wait_for()
    studio.open("people")
    page.get_by_role("button", name="Delete: Gone").click()
    page.get_by_role("button", name="Delete for good").click()
    page.wait_for_selector(f".receipt:has-text('{subject}')")
    page.get_by_role("button", name="Close").first.click()
    page.get_by_role("link", name="Gone", exact=True).wait_for(state="detached")


def test_the_page_goes_on_after_the_api_was_killed(studio, face, service, script):
    script(step_seconds=0.25, steps=24)
    studio.begin(face, "Later")
    page = studio.page
    page.wait_for_selector(".portrait img.is-there")
    studio.allowed = ("Failed to load resource", "ERR_")
    service.api.kill()
    page.get_by_text("The service does not answer").wait_for()
    service.api.start()
    page.get_by_text("The service does not answer").wait_for(state="detached")
    studio.ready()
    page.reload()
    studio.ready()


@pytest.fixture(scope="module")
def locked(tmp_path_factory) -> LocalService:
    """A service that wants a key."""
    folder = tmp_path_factory.mktemp("locked")
    with LocalService(folder, environ={**FAKE, "HDB_API_KEYS": KEY}) as running:
        yield running


def test_a_wrong_key_is_said_and_the_right_one_opens_everything(browser, locked, face):
    context = browser.new_context()
    studio = Studio(context.new_page(), locked)
    studio.allowed = ("401",)
    page = studio.open("people")
    page.get_by_text("This service wants an API key").wait_for()
    page.get_by_label("Key", exact=True).fill("wrong")
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("This key is not accepted").wait_for()
    page.get_by_label("Key", exact=True).fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("Nobody yet").wait_for()
    studio.begin(face, "Keyed")
    page.wait_for_selector(".portrait img.is-there")
    studio.ready()
    assert page.evaluate("() => localStorage.length") == 0
    studio.check()
    context.close()


def test_a_photo_is_taken_with_the_camera_and_checked(studio):
    """The browser's own test picture has no face: it is refused as any other photo."""
    studio.page.context.grant_permissions(["camera"])
    page = studio.open("new")
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Take the photo", disabled=False).click()
    page.locator("dialog").wait_for(state="detached")
    page.wait_for_selector(".photo.is-refused")
    page.get_by_text("Remove the photo that cannot be used").wait_for()


def test_a_full_queue_is_said_with_the_time_and_the_request_goes_through_in_the_end(studio, face):
    studio.begin(face, "Patient")
    studio.ready()
    page = studio.page
    studio.allowed = ("429",)
    problem = {"code": "queue-full", "title": "Full", "detail": "Full.", "status": 429, "type": "", "request_id": "r"}
    answer = {"status": 429, "headers": {"Retry-After": "2"}, "body": json.dumps(problem)}
    page.route("**/v1/generations", lambda route: route.fulfill(**answer), times=1)
    page.get_by_role("button", name="Make 4 pictures").click()
    page.get_by_text("The queue is full. Trying again in").wait_for()
    page.locator(".sheet .frame img.is-there").nth(3).wait_for()


def test_a_job_that_fails_says_why_in_its_place_and_goes_when_dismissed(studio, face, script):
    studio.begin(face, "Unlucky")
    studio.ready()
    page = studio.page
    script(fault="raise")
    page.get_by_role("button", name="Make 4 pictures").click()
    page.wait_for_selector(".frame.is-failed >> text=The worker failed with RuntimeError.")
    page.locator(".frame.is-failed button").click()
    page.wait_for_selector(".frame.is-failed", state="detached")


def test_a_test_key_draws_fixed_pictures(browser, locked, face):
    """What an integrator sees who opens the studio with one."""
    _, key = ApiKeys(open_store(Settings(data_dir=locked.folder))).create("acme", "ci", test=True)
    context = browser.new_context()
    studio = Studio(context.new_page(), locked)
    studio.page.add_init_script(f"sessionStorage.setItem('hdb-key', '{key}')")
    subject = studio.begin(face, "Tested")
    studio.ready()
    studio.page.get_by_text("Test key", exact=True).wait_for()
    studio.page.get_by_role("button", name="Make 4 pictures").click()
    studio.page.locator(".sheet .frame img.is-there").nth(3).wait_for()
    assert subject.startswith("sub_")
    studio.check()
    context.close()

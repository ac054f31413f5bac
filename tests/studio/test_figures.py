"""How large the studio is, how soon it is there, and what a thousand pictures cost."""

from __future__ import annotations

import gzip
import json

import pytest

from deploy.studio import BUILT, NoNode, differences

pytestmark = [pytest.mark.process, pytest.mark.slow]

MOST_BYTES = 100_000
"""Of all scripts and styles, compressed."""
FIRST_PAINT, INTERACTIVE = 0.5, 1.0
"""Seconds on a machine that has nothing else to do; tests allow for neighbors."""
BUSY = 6.0
MOST_SHIFT = 0.02
PICTURES = 1000
MOST_HEAP = 20_000_000
"""Bytes of the page's own objects, when it has a thousand pictures in its list."""


def test_scripts_and_styles_are_small():
    files = [file for file in BUILT.rglob("*") if file.suffix in (".js", ".css", ".html")]
    assert 10_000 < sum(len(gzip.compress(file.read_bytes(), 9)) for file in files) <= MOST_BYTES


def test_what_is_committed_is_what_its_sources_give():
    try:
        assert differences() == [], "make studio"
    except NoNode as reason:
        pytest.skip(str(reason))


def test_it_is_painted_and_interactive_soon(studio):
    page = studio.open("new")
    paint = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    page.wait_for_selector(".drop button.primary")
    ready = page.evaluate("() => performance.now()") / 1000
    painted = page.evaluate(paint) / 1000
    print(f"\nfirst paint after {painted:.2f} s, interactive after {ready:.2f} s")
    assert painted < FIRST_PAINT * BUSY
    assert ready < INTERACTIVE * BUSY


def test_nothing_moves_while_pictures_arrive(studio, face):
    studio.begin(face, "Still")
    studio.ready()
    page = studio.page
    page.evaluate(
        """() => { window.shift = 0; new PerformanceObserver((list) => list.getEntries().forEach((each) => {
        if (!each.hadRecentInput) window.shift += each.value })).observe({ type: 'layout-shift' }) }"""
    )
    page.get_by_role("button", name="Make 4 pictures").focus()
    page.keyboard.press("Enter")
    page.locator(".sheet .frame img.is-there").nth(3).wait_for()
    page.wait_for_timeout(1000)
    shift = page.evaluate("() => window.shift")
    print(f"\nlayout shift {shift:.4f}")
    assert shift <= MOST_SHIFT


def listing(index: int) -> dict[str, object]:
    """A picture as the service lists it."""
    job = f"1m8p{PICTURES * 2 - index:021d}"
    return {
        "id": f"img_{job}-0",
        "url": f"/v1/images/img_{job}-0",
        "thumbnail": f"/v1/images/img_{job}-0?size=256",
        "seed": index,
        "width": 64,
        "height": 64,
        "likeness": 0.5,
        "job_id": f"job_{job}",
        "batch_id": None,
        "subject_ids": ["sub_" + "0" * 25],
        "created_at": "2026-01-01T00:00:00Z",
        "prompt": "a [V] face",
        "negative_prompt": "",
        "steps": None,
        "guidance_scale": None,
        "strength": None,
    }


def measured(session) -> dict[str, float]:
    """What the page's main thread has done so far: seconds of its CPU, bytes."""
    return {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}


def test_a_thousand_pictures_scroll_with_few_in_the_document(studio):
    page = studio.page
    pixel = (
        (BUILT.parents[2] / ".." / "core" / "bundles" / "faces-128" / "samples" / "cartoon.webp").resolve().read_bytes()
    )

    def pages(route):
        start = int(route.request.url.partition("cursor=")[2].partition("&")[0] or 0)
        images = [listing(index) for index in range(start, min(PICTURES, start + 60))]
        after = str(start + 60) if start + 60 < PICTURES else None
        route.fulfill(body=json.dumps({"images": images, "next_cursor": after}), content_type="application/json")

    page.route("**/v1/images?*", pages)
    page.route("**/v1/images/img_*", lambda route: route.fulfill(body=pixel, content_type="image/webp"))
    studio.open("pictures")
    page.wait_for_selector(".sheet .frame img.is-there")
    measures = page.context.new_cdp_session(page)
    measures.send("Performance.enable", {"timeDomain": "threadTicks"})
    before = measured(measures)
    page.evaluate(
        """async () => { window.frames_ = []; let last = performance.now(); let run = true;
        const tick = (now) => { window.frames_.push(now - last); last = now; if (run) requestAnimationFrame(tick) };
        requestAnimationFrame(tick);
        window.most = 0;
        for (let step = 0; step < 120; step += 1) { scrollBy(0, 300);
          await scheduler.postTask(() => {}, { delay: 25 });
          window.most = Math.max(window.most, document.querySelectorAll('.sheet li').length) }
        run = false }"""
    )
    after = measured(measures)
    while not page.locator(f".sheet li[aria-setsize='{PICTURES}']").count():
        page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
        page.wait_for_timeout(200)
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(f".sheet li[aria-posinset='{PICTURES}']")
    most = page.evaluate("() => window.most")
    frames = sorted(page.evaluate("() => window.frames_"))
    late = sum(each > 50 for each in frames) / len(frames)
    busy = (after["TaskDuration"] - before["TaskDuration"]) * 1000 / len(frames)
    print(f"\nat most {most} frames in the document; {late:.0%} of {len(frames)} screen updates took over 50 ms")
    measures.send("HeapProfiler.collectGarbage")
    heap = measured(measures)["JSHeapUsedSize"]
    print(f"{busy:.1f} ms of one thread for each update; {heap / 1e6:.1f} MB of objects with all {PICTURES} pictures")
    assert most < 150
    assert heap < MOST_HEAP

"""The pages of a browser: from this service alone, at any path."""

from __future__ import annotations

import re
import shutil
import subprocess
from urllib.parse import urljoin

import pytest

PAGES = ["/", "/docs"]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.parametrize("page", PAGES)
def test_all_that_a_page_loads_and_links_is_served_from_here(client, page):
    text = client.get(page).text
    found = re.findall(r'(?:href|src)="([^"]+)"', text)
    addresses = [address for address in found if not address.startswith("data:")]
    assert addresses
    for address in addresses:
        assert not re.match(r"[a-z]+:|/", address), "relative: right below any path"
        answer = client.get(urljoin(page, address))
        assert answer.status_code in (200, 503) if address == "readyz" else answer.status_code == 200
    assert re.findall(r"<script>|<style|style=|\son\w+=", text) == [], "the policy would not run it"


def test_the_start_says_what_this_is_and_where_to_go_on(client):
    text = client.get("/").text
    for word in ("One photo of a face", 'href="docs"', 'href="openapi.json"', "docs/README.md"):
        assert word in text


@pytest.mark.parametrize("page", [*PAGES, "/docs/swagger-ui-bundle.js"])
def test_a_page_that_was_not_changed_is_not_sent_again(client, page):
    first = client.get(page)
    again = client.get(page, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_documentation_shows_every_operation_under_its_policy(client, address, tmp_path):
    program = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    flags = ["--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom", f"{address}/docs"]
    done = subprocess.run([*program, *flags], capture_output=True, text=True, check=True, timeout=120)
    listed = re.findall(r'data-path="([^"]+)"', done.stdout)
    documented = client.get("/openapi.json").json()["paths"]
    assert sorted(listed) == sorted(path for path, operations in documented.items() for _ in operations)
    assert "CONSOLE" not in done.stderr

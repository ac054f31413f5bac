from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.server import reference
from api.server.app import create_app
from core.settings import OF_CLIENTS, PREFIX, Settings
from deploy.local import ROOT

DOCUMENT = create_app(Settings()).openapi()


def test_the_reference_is_up_to_date():
    now = reference.reference(DOCUMENT)
    assert (ROOT / "docs" / "api.md").read_text() == now, "docs/api.md is out of date: make docs"


def test_it_is_written_where_it_is_asked_for(tmp_path, capsys):
    assert reference.main([str(tmp_path / "api.md")]) == 0
    assert (tmp_path / "api.md").read_text() == reference.reference(DOCUMENT)
    assert reference.main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_it_has_every_operation_and_every_code():
    text = reference.reference(DOCUMENT)
    for path, operations in DOCUMENT["paths"].items():
        for method in operations:
            assert f"### {method.upper()} {path}\n" in text
    assert len(re.findall(r"^\| 401 \| `unauthorized` \|", text, flags=re.MULTILINE)) > 5
    assert text.count("```") % 2 == 0


def test_what_is_nested_is_there_with_its_bounds():
    text = reference.reference(DOCUMENT)
    for line in (
        "| `options.rank` | integer 1–16 |",
        "| `blend[].weight` (needed) | number over 0, at most 1000 |",
        "| `width` | integer 32–1024 in steps of 8 |",
        "| `items[].seed` | integer 0–4294967295 |",
    ):
        assert line in text
    assert '"blend": [' in text


def test_every_setting_that_a_document_names_is_one():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"\bHDB_[A-Z0-9_]*[A-Z]", document.read_text()):
            assert name in OF_CLIENTS or name.removeprefix(PREFIX).lower() in Settings.model_fields, (document, name)


def documents() -> list[Path]:
    """Every document of the repository that is written by hand or generated."""
    folders = [ROOT, ROOT / "docs", ROOT / "docs" / "decisions"]
    return [page for folder in folders for page in folder.glob("*.md")] + list((ROOT / "core").rglob("README.md"))


@pytest.mark.parametrize("document", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_the_documents_leads_somewhere(document):
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", document.read_text()):
        page = document.parent / target if target else document
        assert page.exists(), target
        if anchor:
            assert anchor in headings(page), f"{target}#{anchor}"


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from coterie.cli import docs
from coterie.errors import CATALOGUE


def test_every_error_has_its_section() -> None:
    page = docs.errors_page()
    assert sorted(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == sorted(CATALOGUE)
    for entry in CATALOGUE.values():
        assert f"[`{entry.code}`](#{entry.code})" in page
        assert entry.cause in page
        assert entry.remedy in page


def test_groups_stand_once() -> None:
    titles = re.findall(r"^## (.*)$", docs.errors_page(), re.MULTILINE)
    assert titles == ["The request's fault", "The server's fault", "A provider's fault"]


def test_every_example_is_the_body_of_its_error() -> None:
    bodies = [json.loads(body)["error"] for body in re.findall(r"```json\n(.*?)\n```", docs.errors_page(), re.DOTALL)]
    assert sorted(body["code"] for body in bodies) == sorted(CATALOGUE)
    for body in bodies:
        entry = CATALOGUE[body["code"]]
        assert body["type"] == entry.type
        assert (body["param"] is not None) == entry.takes_param
        assert "{" not in body["message"]
        assert "<" not in body["message"].replace("<=", "")


def test_a_permanent_failure_of_the_server_shows_its_header() -> None:
    section = docs.errors_page().split("### model_load_failed")[1].split("###")[0]
    assert "`x-should-retry: false`" in section


def test_what_was_written_is_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "docs"
    assert docs.main([str(folder)]) == 0
    assert docs.main([str(folder), "--check"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", [None, "", docs.errors_page() + "\n", docs.errors_page().replace("\n", "\r\n")])
def test_a_stale_page_is_named_and_left(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None) -> None:
    page = tmp_path / "errors.md"
    if text is not None:
        page.write_bytes(text.encode())
    assert docs.main([str(tmp_path), "--check"]) == 1
    assert f"{page} is stale" in capsys.readouterr().err
    assert (page.read_bytes().decode() if page.exists() else None) == text

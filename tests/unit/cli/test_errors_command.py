from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from coterie.errors import CATALOGUE

Coterie = Callable[..., Any]


def test_all_errors_are_listed(coterie: Coterie) -> None:
    lines = coterie("errors").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(CATALOGUE)


def test_all_errors_as_json(coterie: Coterie) -> None:
    listed = json.loads(coterie("errors", "--json").out)
    assert {entry["code"]: entry["status"] for entry in listed} == {
        code: entry.status for code, entry in CATALOGUE.items()
    }


@pytest.mark.parametrize("code", CATALOGUE)
def test_one_error_is_explained(coterie: Coterie, code: str) -> None:
    entry = CATALOGUE[code]
    ran = coterie("errors", code)
    assert ran.status == 0
    for fact in (entry.cause, entry.remedy, entry.type, str(entry.status), entry.responses_code, entry.anthropic_type):
        assert fact in ran.out


def test_one_error_as_json(coterie: Coterie) -> None:
    told = json.loads(coterie("errors", "server_is_overloaded", "--json").out)
    assert (told["status"], told["retry"], told["takes_param"]) == (503, "after", False)


def test_an_unknown_code_has_neighbours(coterie: Coterie) -> None:
    ran = coterie("errors", "invalid_jsn")
    assert ran.status == 1
    assert ran.out == ""
    assert "There is no error 'invalid_jsn'. Did you mean 'invalid_json'" in ran.err

"""``coterie providers``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.support.canned import CannedServer, answer, error_answer

Coterie = Callable[..., Any]

ROW = {
    "provider": "a", "model": "m", "state": "closed", "available_in_s": 0.0, "running": 3, "seats": 8,
    "first_token_ms": 12.5, "answered": 40, "failures": {},
}  # fmt: skip
BAD = {
    **ROW, "provider": "b", "state": "open", "available_in_s": 4.2, "seats": 0, "first_token_ms": None,
    "failures": {"upstream_timeout": 2, "upstream_error": 1},
}  # fmt: skip


def test_the_table(coterie: Coterie) -> None:
    with CannedServer({"/status": answer({"providers": [ROW, BAD]})}) as canned:
        ran = coterie("providers", "--url", canned.url)
    assert ran.status == 0
    rows = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert "a m closed 3/8 12.5 ms 40 -" in rows
    assert "b m open (4.2 s) 3/- - 40 2 upstream_timeout, 1 upstream_error" in rows


def test_as_json(coterie: Coterie) -> None:
    with CannedServer({"/status": answer({"providers": [ROW]})}) as canned:
        assert json.loads(coterie("providers", "--url", canned.url, "--json").out) == [ROW]


def test_a_refusal(coterie: Coterie) -> None:
    with CannedServer({"/status": error_answer(401, "invalid_api_key", "No.")}) as canned:
        assert coterie("providers", "--url", canned.url).status == 1


def test_no_server(coterie: Coterie) -> None:
    assert coterie("providers").status == 1

"""The log's lines."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from coterie.observe import log


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (\w+) +(\S+) (\S+): (.*)")


def lines(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, ...]]:
    output = capsys.readouterr()
    assert output.out == ""
    matches = [LINE.fullmatch(line) for line in output.err.splitlines()]
    return [match.groups() if match else () for match in matches]


def test_a_line_has_the_id_of_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    logger = logging.getLogger("some.room")
    logger.info("before")
    token = log.request_id.set("req_1")
    logger.warning("during %s", "it")
    log.request_id.reset(token)
    assert lines(capsys) == [("INFO", "-", "some.room", "before"), ("WARNING", "req_1", "some.room", "during it")]


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level(level: str, shown: int, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(level)
    logger = logging.getLogger("some.room")
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(name)
    assert len(lines(capsys)) == shown


def test_configuring_again_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    log.configure("info")
    logging.getLogger("some.room").info("once")
    assert len(lines(capsys)) == 1

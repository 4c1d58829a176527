from __future__ import annotations

import asyncio
import io
import json

import pytest

from coterie.testbed.log import MAX_BODIES_BYTES, Entry, RequestLog, digests


def entry(number: int = 1, body_bytes: int = 0, body: object = None) -> Entry:
    return Entry(number, 0.0, "POST", "/v1/chat/completions", {}, body, body_bytes)


def test_secrets_become_digests() -> None:
    shown = digests({"authorization": "Bearer one", "x-api-key": "one", "accept": "*/*"})
    assert shown["accept"] == "*/*"
    assert shown["authorization"].startswith("sha256:")
    assert "one" not in str(shown)
    assert digests({"authorization": "Bearer two"})["authorization"] != shown["authorization"]


def test_the_oldest_go_first() -> None:
    log = RequestLog(most=3)
    for number in range(5):
        log.add(entry(number))
    assert [each.number for each in log.entries] == [2, 3, 4]


def test_bodies_are_bounded_together() -> None:
    log = RequestLog()
    third = MAX_BODIES_BYTES // 3 + 1
    for number in range(4):
        log.add(entry(number, third, {}))
        log.add(entry(10 + number, third))
    assert [each.number for each in log.entries if each.body is not None] == [2, 3]


def test_a_clear_log_has_room_again() -> None:
    log = RequestLog()
    log.add(entry(1, MAX_BODIES_BYTES, {}))
    log.clear()
    log.add(entry(2, MAX_BODIES_BYTES, {}))
    assert [each.number for each in log.entries] == [2]


def test_the_file_has_a_line_for_each_end() -> None:
    file = io.StringIO()
    log = RequestLog(file)
    first, second = entry(1), entry(2)
    log.add(first)
    log.add(second)
    log.ended(second)
    assert [json.loads(line)["number"] for line in file.getvalue().splitlines()] == [2]


async def test_what_is_there_is_seen_at_once() -> None:
    log = RequestLog()
    log.add(entry())
    assert await log.saw(lambda each: each.number == 1, 1) == log.entries


async def test_a_change_is_seen() -> None:
    log = RequestLog()
    seen = [asyncio.create_task(log.saw(lambda each: each.tokens_sent == 2, count)) for count in (1, 2)]
    left = asyncio.create_task(log.saw(lambda each: False, 1))
    await asyncio.sleep(0)
    one, two = entry(1), entry(2)
    log.add(one)
    log.add(two)
    left.cancel()
    one.tokens_sent = 2
    log.changed()
    assert await seen[0] == [one]
    assert not seen[1].done()
    two.tokens_sent = 2
    log.changed()
    assert await seen[1] == [one, two]
    with pytest.raises(asyncio.CancelledError):
        await left

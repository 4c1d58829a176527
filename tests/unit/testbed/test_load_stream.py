"""One measured stream without a socket: what is timed, and when the connection is dropped."""

from __future__ import annotations

import asyncio

import pytest

from coterie.testbed.integrity import Anything, Outcome
from coterie.testbed.load_stream import MAX_BODY_BYTES, MAX_HEAD_BYTES, MeasuredStream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
A = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
REST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def connected(*, streamed: bool = True) -> tuple[MeasuredStream, Transport]:
    stream, transport = MeasuredStream(b"request", Anything(), streamed=streamed), Transport()
    stream.connection_made(transport)
    return stream, transport


async def test_a_whole_stream() -> None:
    stream, transport = connected()
    assert transport.written == b"request"
    for data in (HEAD % (2 * len(A) + len(REST)), A, A):
        stream.data_received(data)
        assert not stream.finished.done()
    stream.data_received(REST)
    assert stream.finished.done()
    assert transport.aborted
    record = stream.record
    assert record.outcome == Outcome("complete")
    assert list(record.tokens) == [1, 1]
    assert record.arrivals_s[0] == 0
    assert None not in (record.connect_s, record.head_s, record.ttft_s, record.total_s)
    assert (record.head_s or 0) <= (record.ttft_s or 0) <= (record.total_s or 0)


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_HEAD_BYTES, Outcome("broken", "not-http")),
        (b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", Outcome("broken", "not-http")),
        (HEAD % len(A) + A, Outcome("broken", "no-done")),
    ],
)
async def test_what_ends_it(data: bytes, outcome: Outcome) -> None:
    stream, transport = connected()
    stream.data_received(data)
    assert stream.finished.done()
    assert transport.aborted
    assert stream.record.outcome == outcome


async def test_too_large_a_body_ends_it() -> None:
    stream, _ = connected(streamed=False)
    stream.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
    for _ in range(MAX_BODY_BYTES // 1_000_000 + 2):
        stream.data_received(bytes(1_000_000))
    assert stream.record.outcome == Outcome("broken", "size")


async def test_only_the_first_end_counts() -> None:
    stream, _ = connected()
    stream.data_received(HEAD % 9999 + A)
    stream.stop()
    assert stream.record.outcome == Outcome("unfinished")
    stream.late()
    stream.connection_lost(None)
    assert stream.record.outcome == Outcome("unfinished")
    assert stream.record.total_s is None


async def test_a_broken_connection_is_no_end_even_where_none_is_announced() -> None:
    stream, _ = connected()
    stream.data_received(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + A + REST)
    assert not stream.finished.done()
    stream.connection_lost(ConnectionResetError())
    assert stream.record.outcome == Outcome("broken", "cut")

"""Which requests open a WebSocket."""

from __future__ import annotations

import pytest

from coterie.api.handshake import opens_socket

WHOLE = {b"host": b"x", b"sec-websocket-version": b"13", b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ=="}

TABLE: dict[str, tuple[bytes, dict[bytes, bytes], bool]] = {
    "whole": (b"/v1/responses", {}, True),
    "with a query": (b"/v1/responses?model=m", {}, True),
    "with an empty body": (b"/v1/responses", {b"content-length": b"0"}, True),
    "of another path": (b"/v1/responses/x", {}, False),
    "of a whole address": (b"http://x/v1/responses", {}, False),
    "with a body": (b"/v1/responses", {b"content-length": b"1"}, False),
    "with chunks": (b"/v1/responses", {b"transfer-encoding": b"chunked"}, False),
    "of an old version": (b"/v1/responses", {b"sec-websocket-version": b"8"}, False),
    "with a short key": (b"/v1/responses", {b"sec-websocket-key": b"dGhlIHNhbXBsZQ=="}, False),
    "with an odd key": (b"/v1/responses", {b"sec-websocket-key": b"dGhl IHNhbXBsZSBub25jZQ=="}, False),
    "with a key of strange bytes": (b"/v1/responses", {b"sec-websocket-key": b"\xff" * 24}, False),
}


@pytest.mark.parametrize(("target", "changes", "opens"), TABLE.values(), ids=TABLE.keys())
def test_a_handshake(target: bytes, changes: dict[bytes, bytes], opens: bool) -> None:
    assert opens_socket(target, list({**WHOLE, **changes}.items())) is opens


@pytest.mark.parametrize("name", WHOLE)
def test_a_handshake_without_a_header(name: bytes) -> None:
    assert not opens_socket(b"/v1/responses", [header for header in WHOLE.items() if header[0] != name])

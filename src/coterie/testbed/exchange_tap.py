"""Reads the requests and the answers on a connection that others write and read: bytes in, facts out. No I/O.

Pipelined requests are refused, because which answer belongs to which could not be told from times any more. Trailers
and interim answers (1xx) are left out. A body is kept up to a limit; then ``too_large`` is set and it is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httptools

MAX_HEAD_BYTES: Final = 64 * 1024
"""First line and headers at most, give or take one read."""

MAX_CHUNKS: Final = 100_000
"""Pieces of one answer's body at most: each is kept with its time, however small it is."""


class TapError(Exception):
    """What came cannot be read as plain HTTP/1.1; the text says why."""


@dataclass(slots=True)
class SeenRequest:
    """One request. It is whole when it is given out."""

    method: str = ""
    target: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    too_large: bool = False

    def header(self, name: str) -> str | None:
        """The value of the header ``name`` (in lower case)."""
        return next((value for key, value in self.headers if key.lower() == name), None)


class RequestTap:
    """Reads requests. ``on_request`` gets each when it is whole, ``on_continue`` is told of a head that asks first."""

    def __init__(
        self,
        on_request: Callable[[SeenRequest], None],
        max_body_bytes: int,
        on_continue: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_request = on_request
        self._on_continue = on_continue
        self._max_body_bytes = max_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._request: SeenRequest | None = None
        self._in_head = False
        self._head_bytes = 0
        self._url = bytearray()

    @property
    def between_requests(self) -> bool:
        """Whether what comes next begins a request."""
        return self._request is None

    def feed(self, data: bytes) -> None:
        """Take what came. Raises :class:`TapError`; the tap is not to be fed any more then."""
        _feed(self._parser, data)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            raise TapError(f"a head of more than {MAX_HEAD_BYTES} bytes")

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request = SeenRequest()
        self._in_head = True
        self._url.clear()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if self._request is not None and self._in_head:
            self._request.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        request = self._request
        if request is not None:
            self._in_head = False
            request.method = self._parser.get_method().decode("latin-1")
            request.target = self._url.decode("latin-1")
            if (request.header("expect") or "").lower() == "100-continue":
                self._on_continue()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        request = self._request
        if request is None or request.too_large:
            return
        request.body += data
        if len(request.body) > self._max_body_bytes:
            request.too_large = True
            request.body.clear()

    def on_message_complete(self) -> None:
        """The request is whole."""
        request, self._request = self._request, None
        if request is not None:
            self._on_request(request)


@dataclass(slots=True)
class SeenResponse:
    """One answer, as far as it came. Times are by the clock that the tap was given."""

    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    head_s: float = 0.0
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    size_bytes: int = 0
    too_large: bool = False
    complete: bool = False

    def header(self, name: str) -> str | None:
        """The value of the header ``name`` (in lower case)."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection tells the end of the body."""
        return bool(self.status) and not (self.header("content-length") or self.header("transfer-encoding"))


class ResponseTap:
    """Reads the answer to one request. ``is_head``: to a HEAD, so that it has no body."""

    def __init__(self, clock: Callable[[], float], max_body_bytes: int, *, is_head: bool) -> None:
        self.response = SeenResponse()
        self._clock = clock
        self._max_body_bytes = max_body_bytes
        self._is_head = is_head
        self._parser = httptools.HttpResponseParser(self)
        self._now_s = 0.0
        self._head_bytes = 0
        self._status = bytearray()
        self._headers: list[tuple[str, str]] = []

    def feed(self, data: bytes) -> None:
        """Take what came. Raises :class:`TapError`; the tap is not to be fed any more then."""
        if self.response.complete:
            raise TapError("bytes follow the answer")
        self._now_s = self._clock()
        _feed(self._parser, data)
        self._head_bytes = 0 if self.response.status else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise TapError(f"a head of more than {MAX_HEAD_BYTES} bytes")

    # httptools callbacks

    def on_message_begin(self) -> None:
        """An answer begins, be it an interim one."""
        if self.response.status:
            raise TapError("bytes follow the answer")
        self._status.clear()
        self._headers = []

    def on_status(self, status: bytes) -> None:
        """A part of the reason phrase."""
        self._status += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if not self.response.status:
            self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        status = self._parser.get_status_code()
        if status >= 200:
            response = self.response
            response.status, response.reason = status, self._status.decode("latin-1")
            response.headers, response.head_s = self._headers, self._now_s
            response.complete = self._is_head

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        response = self.response
        if response.too_large or self._is_head:
            return
        response.size_bytes += len(data)
        if response.size_bytes > self._max_body_bytes or len(response.chunks) >= MAX_CHUNKS:
            response.too_large = True
            response.chunks.clear()
        else:
            response.chunks.append((self._now_s, data))

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was an interim one."""
        self.response.complete = self.response.status != 0


def _feed(parser: httptools.HttpRequestParser | httptools.HttpResponseParser, data: bytes) -> None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        raise TapError("another protocol was asked for") from None
    except httptools.HttpParserError as error:
        raise TapError(f"not HTTP: {type(error).__name__}") from None

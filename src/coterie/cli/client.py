"""Talking to a running server from the program's own commands, with the standard library's HTTP.

What it promises:

* Every way in which a request can fail is one :class:`RequestError` that says what a person needs: the message, the
  code and request id where the server gave them, and what to do (from the catalogue, for a code that stands there).
* An answer counts as complete only when its choice has a finish reason and ``[DONE]`` came. A stream that ends in any
  other way raises, after all that was received has been given out.
* Leaving an answer closes its connection, which is how the server learns that nobody listens.
"""

from __future__ import annotations

import http.client
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlsplit

import orjson
import typer

from coterie.cli.common import load
from coterie.cli.state_lock import running_server
from coterie.config import Settings
from coterie.errors import CATALOGUE
from coterie.wire.sse import DONE, SseError, SseEvent, SseParser

Url = Annotated[
    str | None, typer.Option("--url", envvar="COTERIE_URL", help="A server's address; else the one that runs here")
]
"""The ``--url`` option of every command that talks to a server."""

ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="COTERIE_API_KEY", help="A key of the server")]
"""The ``--api-key`` option of the same."""

_QUICK_S: Final = 10.0
"""Seconds for an answer that needs no model."""
_PATIENT_S: Final = 900.0
"""Seconds between two reads of a generated answer. The server's own deadlines are shorter and say more."""
_READ_BYTES: Final = 64 * 1024
_ERROR_BYTES: Final = 1024 * 1024


class RequestError(Exception):
    """A request that failed: ``message`` says how, ``remedy`` what to do; the rest where the server said it."""

    def __init__(self, message: str, remedy: str, *, code: str | None = None, request_id: str | None = None) -> None:
        self.message = message
        self.remedy = remedy
        self.code = code
        self.request_id = request_id
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Piece:
    """What a stream adds to its answer; ``reasoning`` is what the model says to itself before."""

    text: str
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server answers and the key for it."""

    url: str
    """Without a path: ``http://127.0.0.1:8000``."""
    api_key: str | None = None

    def get(self, path: str) -> Any:
        """The JSON object of ``GET path``. Raises :class:`RequestError`."""
        with _exchange(self, "GET", path, None, _QUICK_S) as response:
            return _object(response.read())

    def models(self) -> list[str]:
        """The names of the served models. Raises :class:`RequestError`."""
        try:
            return [str(card["id"]) for card in self.get("/v1/models")["data"]]
        except (KeyError, TypeError):
            raise _not_ours() from None

    def check_model(self, name: str) -> None:
        """Raise :class:`RequestError` where no model of this name is served."""
        self.get(f"/v1/models/{quote(name, safe='/:@')}")

    def chat(self, body: Mapping[str, Any]) -> Answer:
        """The streamed answer to a chat request. Nothing is sent before it is read."""
        return Answer(self, {**body, "stream": True})


class Answer:
    """One streamed answer."""

    def __init__(self, server: Server, body: Mapping[str, Any]) -> None:
        self._server = server
        self._body = orjson.dumps(body)
        self._reader = ChatReader()

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, once it has."""
        return self._reader.finish_reason

    def pieces(self) -> Generator[Piece, None, None]:
        """The pieces as they come, once; closing this ends the generation. Raises :class:`RequestError`."""
        with _exchange(self._server, "POST", "/v1/chat/completions", self._body, _PATIENT_S) as response:
            self._reader.request_id = response.headers.get("x-request-id")
            while not self._reader.done and (data := response.read1(_READ_BYTES)):
                yield from self._reader.feed(data)
        self._reader.end()


class ChatReader:
    """Turns the bytes of a chat stream into pieces, without I/O, and tells a complete answer from a broken one."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.request_id: str | None = None
        self.done = False
        """Whether ``[DONE]`` came."""
        self._sse = SseParser()

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces in ``data``. Raises :class:`RequestError` for an error frame and for what is no chat stream."""
        try:
            events = self._sse.feed(data)
        except SseError as error:
            yield from self._all_pieces(error.events)
            raise _not_ours() from None
        yield from self._all_pieces(events)

    def end(self) -> None:
        """The connection has ended. Raises :class:`RequestError` unless the answer is complete."""
        if not self.done or self.finish_reason is None:
            raise RequestError(
                "The answer broke off: the stream ended without saying that it was complete.",
                CATALOGUE["upstream_stream_interrupted"].remedy,
                request_id=self.request_id,
            )

    def _all_pieces(self, events: Iterable[SseEvent]) -> Iterator[Piece]:
        for event in events:
            if event.data == DONE:
                self.done = True
                return
            yield from self._pieces(_object(event.data))

    def _pieces(self, chunk: Mapping[str, Any]) -> Iterator[Piece]:
        if "error" in chunk:
            raise failure_of(chunk["error"], self.request_id)
        try:
            for choice in chunk["choices"]:
                yield from _said(choice.get("delta") or {})
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
        except (KeyError, TypeError, AttributeError):
            raise _not_ours() from None


def find_server(url: str | None, api_key: str | None, config: Path | None) -> Server | None:
    """The server at ``url``, else the one that runs on the state folder, if one does.

    Raises ``ConfigError`` (the configuration is looked at only where there is no ``url``) and ``typer.BadParameter``.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise typer.BadParameter("a key has ASCII letters, digits and punctuation only")
    return own_server(load(config), api_key) if url is None else Server(_base(url), api_key)


def own_server(settings: Settings, api_key: str | None = None) -> Server | None:
    """The server that runs on the state folder, with its configuration's first key where no other is given."""
    running = running_server(settings.state_dir)
    if running is None:
        return None
    own_key = settings.server.api_keys[0] if settings.server.api_keys else None
    return Server(running.url, api_key or own_key)


def no_server() -> typer.Exit:
    """Say on stderr that no server runs here; the exit to raise."""
    typer.echo("error: No server runs on this machine's state folder.", err=True)
    typer.echo("  Start one with 'coterie serve', or give the address of another: --url", err=True)
    return typer.Exit(1)


def show_failure(error: RequestError) -> None:
    """Print on stderr what happened, what identifies it, and what to do."""
    typer.echo(f"error: {error.message}", err=True)
    known = [error.code] if error.code else []
    if error.request_id and error.request_id not in error.message:
        known.append(f"request id {error.request_id}")
    if known:
        typer.echo(f"  {', '.join(known)}", err=True)
    typer.echo(f"  {error.remedy}", err=True)


def failure_of(error: object, request_id: str | None) -> RequestError:
    """The failure that the ``error`` object of a body or a stream describes."""
    fields = error if isinstance(error, dict) else {}
    code = str(fields.get("code") or fields.get("type") or "") or None
    entry = CATALOGUE.get(code or "")
    return RequestError(
        str(fields.get("message") or "The server said that the request failed, but not why."),
        entry.remedy if entry is not None else "The server is not Coterie, or a newer one; see its documentation.",
        code=code,
        request_id=request_id,
    )


def _base(url: str) -> str:
    """``scheme://host:port`` of an address as people write it, with or without the ``/v1`` of SDKs."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or parts.username is not None or parts.path.rstrip("/") not in ("", "/v1"):
        raise typer.BadParameter(f"'{url}' is no address of a server, such as http://127.0.0.1:8000")
    return f"{parts.scheme}://{parts.netloc}"


@contextmanager
def _exchange(
    server: Server, method: str, path: str, body: bytes | None, timeout_s: float
) -> Iterator[http.client.HTTPResponse]:
    """An answer with status 200; whatever goes wrong until it is left is a :class:`RequestError`."""
    with closing(_connection(server.url, timeout_s)) as connection:
        try:
            connection.request(method, path, body, _headers(server))
            with connection.getresponse() as response:
                _raise_failure(response)
                yield response
        except (http.client.HTTPException, OSError) as error:
            raise _broken(server.url, error) from None


def _connection(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc, timeout=timeout_s)


def _headers(server: Server) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    return {**headers, "authorization": f"Bearer {server.api_key}"} if server.api_key else headers


def _raise_failure(response: http.client.HTTPResponse) -> None:
    if response.status == 200:
        return
    request_id = response.headers.get("x-request-id")
    try:
        error = orjson.loads(response.read(_ERROR_BYTES))["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise RequestError(
            f"The server answered with HTTP status {response.status} and no error that can be read.",
            "Check the address: it may be another program's, or a proxy's.",
            request_id=request_id,
        ) from None
    raise failure_of(error, request_id)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise _not_ours()
    return value


def _said(delta: Mapping[str, Any]) -> Iterator[Piece]:
    if delta.get("reasoning_content"):
        yield Piece(str(delta["reasoning_content"]), reasoning=True)
    for name in ("content", "refusal"):
        if delta.get(name):
            yield Piece(str(delta[name]))


def _broken(url: str, error: Exception) -> RequestError:
    if isinstance(error, ConnectionRefusedError):
        return RequestError(f"Nothing answers at {url}.", "Start the server with 'coterie serve', or correct --url.")
    if isinstance(error, TimeoutError):
        return RequestError(f"{url} did not answer in time.", "Try again; 'coterie status' shows what it is doing.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return RequestError(
        f"The connection to {url} broke: {reason}.", "Check that the server still runs, and the address."
    )


def _not_ours() -> RequestError:
    return RequestError(
        "The server sent something that is not part of OpenAI's API.",
        "Check the address: it may be another program's, or a proxy's.",
    )

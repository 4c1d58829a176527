"""The Responses API of a real server from outside: what is asked, what a stream says, what is stored of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from tests.support.server import Answer, RawStream, Server, eventually

from coterie.dialects.responses_validator import judge

RESPONSES = "/v1/responses"
CONVERSATIONS = "/v1/conversations"

Event = dict[str, Any]
Headers = Mapping[str, str]

NO_HEADERS: Headers = {}
RUNNING = ("queued", "in_progress")

_PROVIDER = """
[[providers]]
name = "{name}"
base_url = "{url}"
first_token_timeout_s = 0.5
idle_timeout_s = 0.5
total_timeout_s = 20
models = {models}
"""

_SERVER = """
{top}

[limits]
body_bytes = 8388608

[dispatch]
attempts = 1
open_s = 0.01
open_max_s = 0.01
{tables}
"""


def configured(*providers: tuple[str, Iterable[str]], top: str = "", tables: str = "") -> str:
    """A configuration: ``providers`` are their URLs and their models; one attempt, and little patience."""
    return _SERVER.format(top=top, tables=tables) + "".join(
        _PROVIDER.format(name=f"provider-{place}", url=url, models=json.dumps(list(models)))
        for place, (url, models) in enumerate(providers)
    )


def respond(model: str, **fields: Any) -> dict[str, Any]:
    """A request for a response."""
    return {"model": model, "input": "one two three", **fields}


def create(server: Server, model: str, headers: Headers = NO_HEADERS, **fields: Any) -> Answer:
    """Ask for a response at once."""
    return server.ask("POST", RESPONSES, respond(model, **fields), headers)


def stream(server: Server, model: str, headers: Headers = NO_HEADERS, **fields: Any) -> RawStream:
    """Ask for one as a stream."""
    return RawStream(server, RESPONSES, respond(model, **fields), headers)


def begun(raw: RawStream, events: int) -> str:
    """Read so many events; the id of the response."""
    assert raw.status == 200
    assert raw.events(events)
    return str(parsed(raw.body)[0]["response"]["id"])


def get(server: Server, response_id: str, headers: Headers = NO_HEADERS) -> Answer:
    """A stored response."""
    return server.ask("GET", f"{RESPONSES}/{response_id}", None, headers)


def replayed(server: Server, response_id: str) -> bytes:
    """The stream of a stored response."""
    answer = server.ask("GET", f"{RESPONSES}/{response_id}?stream=true")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return answer.body


def parsed(body: bytes) -> list[Event]:
    """The events of a stream, or of a part of one; without the end mark, and without half an event."""
    frames = [frame.partition(b"\ndata: ")[2] for frame in body.split(b"\n\n")[:-1]]
    return [orjson.loads(data) for data in frames if data]


def text_of(response: Mapping[str, Any]) -> str:
    """All that the messages of a response say."""
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def check_kept(server: Server, body: bytes) -> dict[str, Any]:
    """A whole stream keeps the protocol, and what is stored of it says the same. Returns the final response."""
    assert judge(body) == []
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    events = parsed(body)
    response: dict[str, Any] = events[-1]["response"]
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert deltas == text_of(response)
    stored = get(server, response["id"])
    assert stored.status == 200, stored.body
    assert stored.json == response
    assert replayed(server, response["id"]) == body
    return response


def ended(server: Server, response_id: str, headers: Headers = NO_HEADERS) -> dict[str, Any]:
    """A stored response, once it has ended."""
    return eventually(lambda: get(server, response_id, headers).json, lambda told: told["status"] not in RUNNING)


def begins(server: Server, response_id: str, headers: Headers = NO_HEADERS) -> dict[str, Any]:
    """A response in the background, once it is being generated."""
    return eventually(lambda: get(server, response_id, headers).json, lambda told: told["status"] == "in_progress")


def journals(folder: Path) -> list[str]:
    """What lies beside the database of the server in ``folder`` while responses run."""
    return sorted(path.name for path in (folder / "state" / "responses").iterdir())


def rows(folder: Path) -> dict[str, str]:
    """The status of every response in the SQLite database of the server in ``folder``."""
    file = folder / "state" / "coterie.db"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT id, status FROM responses"))


@contextlib.contextmanager
def nothing_stored(server: Server) -> Iterator[None]:
    """Nobody can tell afterwards that anything was asked inside."""
    before = rows(server.folder).keys()
    yield
    assert rows(server.folder).keys() == before


def holders(folder: Path, marker: bytes) -> list[str]:
    """The files of the state of the server in ``folder`` that have ``marker`` in them."""
    state = folder / "state"
    return [str(path.relative_to(state)) for path in state.rglob("*") if path.is_file() and marker in path.read_bytes()]

"""What the upstream's addresses answer: from a request to the script that is played for it. No I/O.

``/v1/chat/completions``, ``/v1/completions``, ``/v1/embeddings``, ``/v1/models``, and for whoever tests
``/testbed/log`` (GET: what was seen; DELETE: forget it, and what was counted for each name) and ``/testbed/faults``.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson

from coterie.testbed.answers import Answer, Ask, AskError, Dialect, embeddings_body, read_ask
from coterie.testbed.bodies import (
    UNAUTHORIZED,
    Failure,
    bad_request,
    failure_bytes,
    response,
    unknown_model,
    unknown_url,
)
from coterie.testbed.faults import COMMON_OPTIONS, FAULTS, FaultSyntaxError, Plan, UnknownFaultError, parse
from coterie.testbed.log import MAX_BODY_BYTES, Entry, RequestLog, digests
from coterie.testbed.scripts import REDIRECT_PATH, play
from coterie.testbed.steps import Call, Steps

MAX_NAMES: Final = 10_000
"""Names of models for which requests are counted; the one that was counted first goes first."""

_OWN: Final = "/testbed/"
_MODELS: Final = "/v1/models"
_DIALECTS: Final[Mapping[str, Dialect]] = {"/v1/chat/completions": "chat", "/v1/completions": "completions"}


@dataclass(slots=True)
class Settings:
    """How an upstream answers where a model's name does not say otherwise."""

    models: MutableMapping[str, str] = field(default_factory=dict)
    """Names of models beside the faults' own, and what stands behind each: ``{"llama": "cut@40"}``. May be changed
    while the upstream runs."""
    tokens: int = 0
    """Tokens of a whole answer; 0: what the request allows, else 60."""
    rate: float = 0
    """Tokens a second of each answer; 0 for no pace."""
    seed: int = 0
    marker: str = ""
    """Stands in every body of a failure like a secret that must not leak."""
    api_key: str = ""
    """The one key that is accepted; empty for any and none."""


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What is played for a request; ``entry`` is in the log, unless the request was for the log."""

    steps: Steps
    entry: Entry
    rate: float = 0


class _RefusedError(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__()


class Site:
    """Answers requests. Holds what was counted for each name, and the log."""

    def __init__(self, settings: Settings, log: RequestLog) -> None:
        self.settings = settings
        self.log = log
        self._asked: OrderedDict[str, int] = OrderedDict()
        self._created = int(time.time())

    def reply(self, request: Request) -> Reply:
        """What to play for a request."""
        path = request.target.partition("?")[0]
        entry = Entry(0, time.time(), request.method, path, digests(request.headers), body_bytes=len(request.body))
        if path.startswith(_OWN) and path != REDIRECT_PATH:
            return Reply(_once(self._own(request.method, path)), entry)
        entry.number = self.log.next_number()
        try:
            return self._answered(request, path, entry)
        except _RefusedError as refused:
            return Reply(_once(failure_bytes(refused.failure, self.settings.marker)), entry)
        finally:
            self.log.add(entry)

    def forget(self) -> None:
        """Clear the log, and count anew for each name."""
        self.log.clear()
        self._asked.clear()

    def models(self) -> list[str]:
        """Every name that is listed."""
        return [*self.settings.models, *FAULTS]

    def _answered(self, request: Request, path: str, entry: Entry) -> Reply:
        self._check_key(request)
        if request.method == "GET" and path.startswith(_MODELS):
            return Reply(_once(self._models(path)), entry)
        if request.method != "POST" or (path not in _DIALECTS and path != "/v1/embeddings"):
            raise _RefusedError(unknown_url(request.method, path))
        body = _object(request.body)
        entry.body = body if len(request.body) <= MAX_BODY_BYTES else None
        entry.model = _model(body)
        plan = self._plan(entry.model)
        entry.fault = plan.fault.name
        return self._played(path, body, plan, entry)

    def _check_key(self, request: Request) -> None:
        key = self.settings.api_key
        if key and request.headers.get("authorization") != f"Bearer {key}":
            raise _RefusedError(UNAUTHORIZED)

    def _plan(self, model: str) -> Plan:
        try:
            return parse(self.settings.models.get(model, model))
        except UnknownFaultError:
            raise _RefusedError(unknown_model(model)) from None
        except FaultSyntaxError as error:
            raise _RefusedError(bad_request(f"{error}.", "model")) from None

    def _played(self, path: str, body: Mapping[str, Any], plan: Plan, entry: Entry) -> Reply:
        assert entry.model is not None
        rate = plan.amount("rate") or self.settings.rate
        try:
            answer = self._answer(read_ask(_DIALECTS[path], body), plan, entry) if path in _DIALECTS else None
            good = b"" if answer else response(200, orjson.dumps(embeddings_body(entry.model, body)))
        except AskError as error:
            raise _RefusedError(bad_request(str(error), error.param)) from None
        marker = plan.text("marker") or self.settings.marker
        call = Call(plan, answer, good, self._count(entry.model), marker, rate, entry)
        return Reply(play(call), entry, rate)

    def _answer(self, ask: Ask, plan: Plan, entry: Entry) -> Answer:
        tokens = int(plan.amount("tokens")) or self.settings.tokens
        seed = int(plan.amount("seed")) or self.settings.seed
        answer = Answer(ask, tokens=tokens, seed=seed, identity=f"{entry.number:08x}", created=int(entry.arrived_at_s))
        entry.stream = ask.stream
        entry.continue_flag = ask.flagged
        entry.continued_from = answer.continued_from
        entry.asked_to_continue = ask.flagged or answer.continued_from is not None or ask.ends_with_assistant
        return answer

    def _count(self, model: str) -> int:
        """Requests for ``model`` before this one."""
        earlier = self._asked.get(model, 0)
        self._asked[model] = earlier + 1
        if len(self._asked) > MAX_NAMES:
            self._asked.popitem(last=False)
        return earlier

    def _models(self, path: str) -> bytes:
        name = path[len(_MODELS) :].removeprefix("/")
        if not name:
            return _json({"object": "list", "data": [self._described(each) for each in self.models()]})
        self._plan(name)
        return _json(self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "testbed"}

    def _own(self, method: str, path: str) -> bytes:
        handler = self._handlers.get((method, path))
        return handler(self) if handler else failure_bytes(unknown_url(method, path))

    def _shown_log(self) -> bytes:
        return _json({"entries": self.log.entries})

    def _cleared_log(self) -> bytes:
        cleared = len(self.log)
        self.forget()
        return _json({"cleared": cleared})

    def _shown_faults(self) -> bytes:
        return _json(described_faults())

    _handlers: Final[Mapping[tuple[str, str], Callable[[Site], bytes]]] = {
        ("GET", "/testbed/log"): _shown_log,
        ("DELETE", "/testbed/log"): _cleared_log,
        ("GET", "/testbed/faults"): _shown_faults,
    }


def described_faults() -> dict[str, Any]:
    """The table of faults as JSON."""
    common = {name: asdict(option) for name, option in COMMON_OPTIONS.items()}
    return {"faults": [{**asdict(fault), "pattern": fault.pattern} for fault in FAULTS.values()], "options": common}


def _once(data: bytes) -> Iterator[bytes]:
    yield data


def _json(value: object) -> bytes:
    return response(200, orjson.dumps(value))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise _RefusedError(bad_request("We could not parse the JSON body of your request."))
    return value


def _model(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _RefusedError(bad_request("You must provide a model parameter."))
    return model

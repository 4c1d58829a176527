"""Whatever happens inside, the edge has an answer, an id, a line and a count for it."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import weakref
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from tests.support.provider import SECRET, ScriptedProvider
from tests.support.web import CHAT, JSON, Answer, AsgiCall, AsgiClient, client

from coterie.api.edge import CLIENT_CLOSED, Edge, Exchange
from coterie.errors import ApiError
from coterie.observe import log
from coterie.observe.metrics import Metrics

REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")

ORIGIN = {"origin": "http://page.example"}

RAISED: dict[str, tuple[Exception, int, str]] = {
    "a failure": (ApiError("missing_required_parameter", param="model"), 400, "missing_required_parameter"),
    "a bug": (RuntimeError(SECRET), 500, "internal_error"),
    "a bug in text": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, SECRET), 500, "internal_error"),
    "a method": (HTTPException(405, SECRET, {"Allow": "GET"}), 405, "method_not_allowed"),
    "a path": (HTTPException(404, SECRET), 404, "not_found"),
    "a time limit": (TimeoutError(SECRET), 500, "internal_error"),
}


class App:
    """An application that fails, before or after the head of its answer."""

    def __init__(self, error: BaseException, *, after_head: bool = False) -> None:
        self.error = error
        self.after_head = after_head
        self.request_id = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.request_id = log.request_id.get()
        if self.after_head:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise self.error


def edge(app: App, *origins: str) -> tuple[Edge, Metrics]:
    metrics = Metrics(list)
    return Edge(app, metrics, origins), metrics


@pytest.fixture(autouse=True)
def _access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "coterie.access")


@pytest.mark.parametrize(("error", "status", "code"), RAISED.values(), ids=RAISED.keys())
async def test_everything_that_is_raised_has_its_answer(error: Exception, status: int, code: str) -> None:
    app = App(error)
    under_test, metrics = edge(app)
    answer = await AsgiClient(under_test).get("/path")
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["x-request-id"] == app.request_id
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert SECRET not in answer.body.decode() + str(answer.headers)
    assert f'code="{code}"' in metrics.render().decode()
    assert "coterie_requests_active 0.0" in metrics.render().decode()


async def test_the_methods_of_a_route_are_told() -> None:
    under_test, _ = edge(App(HTTPException(405, headers={"Allow": "GET, HEAD"})))
    answer = await AsgiClient(under_test).get("/path", "DELETE")
    assert answer.headers["allow"] == "GET, HEAD"
    assert "Not allowed to DELETE on /path." in answer.error["message"]


async def test_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    await AsgiClient(edge(App(RuntimeError(SECRET)))[0]).get("/path")
    assert SECRET in caplog.text
    assert "Traceback" in caplog.text


async def test_details_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    answer = await AsgiClient(edge(App(ApiError("engine_failed", detail=SECRET)))[0]).get("/path")
    assert SECRET not in answer.body.decode()
    assert f"engine_failed: {SECRET}" in caplog.text


async def test_nothing_is_written_into_an_answer_that_has_begun() -> None:
    call = AsgiCall(edge(App(RuntimeError(SECRET), after_head=True))[0], "GET", "/path")
    await call.task
    assert [message["type"] for message in call.sent] == ["http.response.start"]


async def test_a_client_that_left_gets_nothing(caplog: pytest.LogCaptureFixture) -> None:
    under_test, metrics = edge(App(ClientDisconnect()))
    call = AsgiCall(under_test, "POST", "/path")
    await call.task
    assert call.sent == []
    assert f'outcome="{CLIENT_CLOSED}"' in metrics.render().decode()
    assert CLIENT_CLOSED in caplog.text


async def test_a_request_that_the_stop_cuts_off_is_told_so() -> None:
    """As while its body is still on its way."""
    under_test, metrics = edge(App(asyncio.CancelledError()))
    call = AsgiCall(under_test, "POST", "/path")
    await call.task
    assert (call.answer.status, call.answer.error["code"]) == (503, "server_shutting_down")
    assert call.answer.headers["connection"] == "close"
    assert 'outcome="ok"' not in metrics.render().decode()
    assert "coterie_requests_active 0.0" in metrics.render().decode()


async def test_other_protocols_pass() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def nothing(*message: Any) -> Any:
        raise AssertionError

    scope = {"type": "lifespan"}
    await Edge(app, Metrics(list))(scope, nothing, nothing)
    assert seen == [scope]


async def test_ids_are_distinct_and_of_one_form() -> None:
    asking = client(ScriptedProvider())
    answers = [
        await asking.get("/health"),
        await asking.get("/nothing"),
        await asking.post("/v1/chat/completions", CHAT),
    ]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 3
    assert all(REQUEST_ID.fullmatch(request_id) for request_id in ids)


async def test_a_service_failure_repeats_the_id_in_its_message() -> None:
    answer = await AsgiClient(edge(App(RuntimeError()))[0]).get("/path")
    assert f"(request id: {answer.headers['x-request-id']})" in answer.error["message"]


async def test_the_line_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(log._WithRequestId())
    answer = await client(ScriptedProvider()).get("/nothing\n\x1b[31m")
    [record] = [record for record in caplog.records if record.name == "coterie.access"]
    assert record.getMessage().startswith("GET /nothing\\n\\x1b[31m caller 404 not_found ")
    assert vars(record)["request_id"] == answer.headers["x-request-id"]
    assert log.request_id.get() == "-"


async def test_a_line_that_nobody_reads_is_not_written(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exchange, "log", lambda exchange: pytest.fail("somebody made it"))
    caplog.set_level(logging.WARNING, "coterie.access")
    assert (await client(ScriptedProvider()).get("/health")).status == 200


async def test_an_exchange_is_gone_with_its_request() -> None:
    """Not only once somebody looks for what holds itself."""
    seen: list[weakref.ref[Exchange]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(weakref.ref(scope["coterie.exchange"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gc.disable()
    try:
        call = AsgiCall(Edge(app, Metrics(list)), "GET", "/path")
        await call.task
        assert seen[0]() is None
    finally:
        gc.enable()


async def test_a_success_is_counted_by_its_route() -> None:
    asking = client(ScriptedProvider())
    await asking.get("/v1/models/m")
    page = (await asking.get("/metrics")).body.decode()
    assert (
        'coterie_requests_total{code="",dialect="",model="",outcome="ok",route="/v1/models/{model:path}"} 1.0' in page
    )
    assert "coterie_requests_active 1.0" in page  # the look itself


async def test_strange_paths_share_one_label() -> None:
    asking = client(ScriptedProvider())
    for number in range(5):
        await asking.get(f"/{number}")
    page = (await asking.get("/metrics")).body.decode()
    assert 'coterie_requests_total{code="not_found",dialect="",model="",outcome="caller",route="other"} 5.0' in page


# Browsers.


def cors_headers(answer: Answer) -> Mapping[str, str]:
    return {
        name: value for name, value in answer.headers.items() if name.startswith("access-control") or name == "vary"
    }


ANSWERS = {
    "a success": ("/v1/models", "GET"),
    "no such path": ("/nothing", "GET"),
    "no such method": ("/v1/models", "DELETE"),
    "no body": ("/v1/chat/completions", "POST"),
}


@pytest.mark.parametrize(("path", "method"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_browsers_are_not_let_in_by_default(path: str, method: str) -> None:
    assert cors_headers(await client(ScriptedProvider()).get(path, method, **ORIGIN)) == {}


@pytest.mark.parametrize("origins", [["*"], ["http://other.example", "http://page.example"]], ids=["all", "named"])
@pytest.mark.parametrize(("path", "method"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_browsers_can_read_every_answer(path: str, method: str, origins: list[str]) -> None:
    answer = await client(ScriptedProvider(), server={"cors_origins": origins}).get(path, method, **ORIGIN)
    assert cors_headers(answer) == {
        "access-control-allow-origin": "http://page.example",
        "access-control-expose-headers": "*",
        "vary": "Origin",
    }


async def test_the_answer_to_a_missing_key_can_be_read_by_browsers() -> None:
    asking = client(ScriptedProvider(), server={"cors_origins": ["*"], "api_keys": ["sk-secret"]})
    answer = await asking.get("/v1/models", **ORIGIN)
    assert answer.status == 401
    assert "access-control-allow-origin" in cors_headers(answer)


@pytest.mark.parametrize("headers", [{}, {"origin": "http://stranger.example"}, {"origin": "null"}, {"origin": ""}])
async def test_other_origins_are_not_named(headers: Mapping[str, str]) -> None:
    asking = client(ScriptedProvider(), server={"cors_origins": ["http://page.example"]})
    assert cors_headers(await asking.get("/v1/models", **headers)) == {"vary": "Origin"}


PREFLIGHT = {
    **ORIGIN,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


@pytest.mark.parametrize("keys", [[], ["sk-secret"]], ids=["open", "with keys"])
async def test_a_browser_may_ask_before_it_posts(keys: list[str]) -> None:
    asking = client(ScriptedProvider(), server={"cors_origins": ["*"], "api_keys": keys})
    answer = await asking.ask("OPTIONS", "/v1/chat/completions", b"", PREFLIGHT)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "http://page.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]


@pytest.mark.parametrize(
    ("origins", "headers"),
    [
        ([], PREFLIGHT),
        (["http://other.example"], PREFLIGHT),
        (["*"], ORIGIN),
        (["*"], {"access-control-request-method": "POST"}),
    ],
    ids=["off", "another origin", "not asked", "no origin"],
)
async def test_what_is_no_allowed_preflight_is_an_unknown_method(
    origins: list[str], headers: Mapping[str, str]
) -> None:
    asking = client(ScriptedProvider(), server={"cors_origins": origins})
    answer = await asking.ask("OPTIONS", "/v1/chat/completions", b"", {**JSON, **headers})
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")

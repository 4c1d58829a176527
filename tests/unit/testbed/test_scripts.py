"""Each fault's bytes, without a socket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from coterie.dialects.chat_validator import judge
from coterie.testbed.answers import answer_text
from coterie.testbed.bodies import ERRORS, NO_CREDIT, OVERFLOWS
from coterie.testbed.faults import FAULTS
from coterie.testbed.log import Entry, RequestLog
from coterie.testbed.scripts import SCRIPTS, TOOL_ARGUMENTS
from coterie.testbed.site import Request, Settings, Site
from coterie.testbed.steps import PACE, Ending, Step, Wait
from coterie.wire.sse import SseParser


@dataclass
class Played:
    steps: list[Step]
    entry: Entry

    @property
    def writes(self) -> list[bytes]:
        return [step for step in self.steps if isinstance(step, bytes)]

    @property
    def status(self) -> int | None:
        return int(self.writes[0][9:12]) if self.writes else None

    @property
    def ending(self) -> Ending | None:
        last = self.steps[-1]
        return last if isinstance(last, Ending) else None

    @property
    def payload(self) -> bytes:
        return b"".join(self.writes).partition(b"\r\n\r\n")[2]

    @property
    def whole(self) -> bool:
        """Whether the chunked body has its end."""
        return self.payload.endswith(b"\r\n0\r\n\r\n")

    @property
    def body(self) -> bytes:
        """The chunks of a stream put together."""
        parts, rest = [], self.payload
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            parts.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        return b"".join(parts)

    @property
    def events(self) -> list[bytes]:
        return [event.data for event in SseParser(max_event_bytes=200_000_000).feed(self.body)]

    @property
    def text(self) -> str:
        chunks = [json.loads(event) for event in self.events if event.startswith(b'{"id":"chatcmpl')]
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


def played(model: str, path: str = "/v1/chat/completions", **fields: Any) -> Played:
    site = Site(Settings(), RequestLog())
    request = {"model": model, "messages": [{"role": "user", "content": "say it"}], "prompt": "say it", **fields}
    reply = site.reply(Request("POST", path, {}, json.dumps(request).encode(), True))
    return Played(list(reply.steps), reply.entry)


def stream(model: str, **fields: Any) -> Played:
    return played(model, stream=True, stream_options={"include_usage": True}, **fields)


def broken_rules(answer: Played) -> set[str]:
    return {violation.rule for violation in judge(answer.body, include_usage=True)}


def test_every_fault_has_its_script() -> None:
    assert SCRIPTS.keys() == FAULTS.keys()


# Good answers

WHOLE = [
    "ok", "ok:rate=1000", "ok:seed=4", "slow-first@1", "slow-first@1:before=headers", "stall@4:seconds=1",
    "no-continue", "filter-finish@4", "split", "coalesce", "coalesce@2", "comments", "huge@0", "tool-call", "truncated",
    "error-body",
]  # fmt: skip


@pytest.mark.parametrize("model", WHOLE)
def test_a_strict_validator_accepts(model: str) -> None:
    answer = stream(model)
    assert (answer.status, answer.whole, broken_rules(answer)) == (200, True, set())


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("choices", [1, 2])
def test_the_good_stream(choices: int, usage: bool) -> None:
    answer = played("ok:tokens=5", stream=True, n=choices, stream_options={"include_usage": usage})
    assert judge(answer.body, include_usage=usage, choices=choices) == []
    chunks = [json.loads(event) for event in answer.events[:-1]]
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks[:choices]] == ["assistant"] * choices
    assert len(chunks) == 7 * choices + usage
    assert len(answer.writes) == len(chunks) + 2
    assert answer.entry.tokens_sent == 5


def test_the_text_and_the_usage() -> None:
    answer = stream("ok:tokens=5")
    assert answer.text == answer_text(5)
    assert json.loads(answer.events[-2])["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}


def test_the_good_plain_answer() -> None:
    body = played("ok:tokens=5", n=2).json
    assert [choice["message"]["content"] for choice in body["choices"]] == [answer_text(5)] * 2
    assert body["object"] == "chat.completion"
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 10, "total_tokens": 12}


def test_completions_stream() -> None:
    answer = played("ok:tokens=2", "/v1/completions", stream=True)
    chunks = [json.loads(event) for event in answer.events[:-1]]
    assert [chunk["choices"][0]["text"] for chunk in chunks] == [" w0", " w1", ""]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_pace() -> None:
    answer = stream("ok:tokens=4:rate=5")
    assert answer.steps.count(PACE) == 3
    assert answer.steps[2] is PACE
    assert played("ok:tokens=4:rate=5").steps[0] == Wait(0.8)


# In place of an answer

REFUSED = {
    "rate-limit": 429, "rate-limit-bare": 429, "error-once": 500, "unavailable": 503, "unauthorized": 401,
    "no-model": 404, "filter": 400, "html": 502, "redirect": 302, "blank": 200, "flap@1": 503,
    **{f"overflow:style={style}": failure.status for style, failure in OVERFLOWS.items()},
    **{f"no-credit:style={style}": failure.status for style, failure in NO_CREDIT.items()},
}  # fmt: skip


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", REFUSED)
def test_refusals(model: str, streamed: bool) -> None:
    answer = played(model, stream=streamed)
    assert (answer.status, answer.ending, answer.entry.tokens_sent) == (REFUSED[model], None, 0)


def test_retry_after() -> None:
    assert b"retry-after: 7\r\n" in played("rate-limit@7").writes[0]
    assert b"retry-after" not in played("rate-limit-bare").writes[0]


def test_an_answer_without_a_body() -> None:
    assert played("blank").payload == b""


@pytest.mark.parametrize(("model", "ending"), [("reset", Ending.RESET), ("silent", Ending.SILENCE)])
def test_nothing_is_written(model: str, ending: Ending) -> None:
    assert stream(model).steps == [ending]


def test_headers_without_end() -> None:
    answer = stream("endless-headers")
    assert b"\r\n\r\n" not in b"".join(answer.writes)
    assert len(b"".join(answer.writes)) > 10_000_000


# Broken off


@pytest.mark.parametrize(("name", "ending"), [("cut", Ending.RESET), ("close", Ending.CLOSE)])
@pytest.mark.parametrize(("at", "tokens"), [(0, 0), (1, 1), (7, 7), (60, 60), (99, 60)])
def test_broken_off_at_a_token(name: str, ending: Ending, at: int, tokens: int) -> None:
    answer = stream(f"{name}@{at}")
    assert (answer.ending, answer.whole, answer.text) == (ending, False, answer_text(tokens))
    assert answer.entry.tokens_sent == tokens
    assert b"finish_reason" in answer.body
    assert b'"finish_reason":"' not in answer.body


@pytest.mark.parametrize(("name", "ending"), [("cut", Ending.RESET), ("close", Ending.CLOSE)])
def test_a_plain_answer_is_broken_off_in_its_body(name: str, ending: Ending) -> None:
    answer = played(f"{name}@30")
    assert answer.ending is ending
    with pytest.raises(json.JSONDecodeError):
        assert answer.json
    assert b'"choices"' in answer.payload


def test_a_stream_that_just_ends() -> None:
    answer = stream("end@4")
    assert (answer.whole, answer.text) == (True, answer_text(4))
    assert broken_rules(answer) == {"done-missing", "finish-missing"}
    plain = played("end@4").json
    assert plain["choices"][0]["finish_reason"] is None
    assert plain["choices"][0]["message"]["content"] == answer_text(4)


def test_a_pause_at_a_token() -> None:
    steps = stream("stall@4:seconds=9").steps
    assert steps.index(Wait(9)) == 5
    plain = played("stall@4:seconds=9")
    assert plain.steps[1] == Wait(9)
    assert plain.json["choices"][0]["message"]["content"] == answer_text(60)


def test_a_pause_before_the_first_token() -> None:
    answer = stream("slow-first@9")
    assert answer.steps[1] == Wait(9)
    assert b'"role":"assistant"' in answer.writes[0]
    assert stream("slow-first@9:before=headers").steps[0] == Wait(9)


def test_a_continuation_of_what_was_cut_is_the_rest() -> None:
    first = stream("cut@40")
    messages = [{"role": "user", "content": "say it"}, {"role": "assistant", "content": first.text}]
    rest = stream("ok", messages=messages)
    assert first.text + rest.text == answer_text(60)
    assert rest.entry.continued_from == 40
    assert json.loads(rest.events[-2])["usage"]["prompt_tokens"] == 42


def test_a_continuation_is_refused() -> None:
    messages = [{"role": "user", "content": "say it"}, {"role": "assistant", "content": " w0"}]
    assert stream("no-continue", messages=messages).status == 400


# Wrong content

WRONG: dict[str, set[str]] = {
    "malformed@4": {"event-json"},
    "bad-utf8@4": {"event-json"},
    "no-done": {"done-missing"},
    "no-finish": {"finish-missing", "usage-last"},
    "double-finish": {"finish-once"},
    "after-finish": {"finish-last"},
    "finish-error@4": {"finish-reason"},
    "no-usage": {"usage-missing"},
    "empty": {"outcome-none"},
    "role-only:then=end": {"done-missing", "finish-missing"},
    "crlf": {"framing-lf"},
    "bom": {"framing-bom"},
}


@pytest.mark.parametrize("model", WRONG)
def test_a_strict_validator_says_what_is_wrong(model: str) -> None:
    answer = stream(model)
    assert (answer.status, answer.whole, broken_rules(answer)) == (200, True, WRONG[model])


@pytest.mark.parametrize("style", ERRORS)
@pytest.mark.parametrize("at", [0, 4])
def test_an_error_event(style: str, at: int) -> None:
    answer = stream(f"error-event@{at}:style={style}")
    errors = [json.loads(event) for event in answer.events if b'"error":' in event]
    assert (errors, answer.entry.tokens_sent) == ([ERRORS[style]], at)
    assert answer.whole


@pytest.mark.parametrize(("then", "ending"), [("reset", Ending.RESET), ("close", Ending.CLOSE), ("error", None)])
def test_a_role_and_no_more(then: str, ending: Ending | None) -> None:
    answer = stream(f"role-only:then={then}")
    assert (answer.ending, answer.text, answer.entry.tokens_sent) == (ending, "", 0)
    assert b'"role":"assistant"' in answer.events[0]


def test_plain_answers_that_are_wrong() -> None:
    assert played("error-body:style=vllm").json == ERRORS["vllm"]
    assert played("finish-error@4").json["choices"][0]["finish_reason"] == "error"
    assert played("filter-finish@4").json["choices"][0]["finish_reason"] == "content_filter"
    assert "usage" not in played("no-usage").json
    unfinished = played("no-finish").json["choices"][0]
    assert (unfinished["finish_reason"], unfinished["message"]["content"]) == (None, answer_text(60))
    for model in ("malformed", "truncated", "bad-utf8", "wrong-type"):
        answer = played(model)
        assert answer.status == 200
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
            assert answer.json


def test_another_type_than_a_stream() -> None:
    assert b"content-type: text/html" in stream("wrong-type").writes[0]
    assert b"content-type: application/json" in stream("wrong-type:as=json").writes[0]
    assert stream("wrong-type:as=json").json["choices"][0]["message"]["content"] == answer_text(60)


def test_secrets_in_what_is_broken() -> None:
    for model in ("malformed:marker=zq7", "bad-utf8:marker=zq7", "error-event:marker=zq7", "wrong-type:marker=zq7",
                  "redirect:marker=zq7", "role-only:then=error:marker=zq7"):  # fmt: skip
        assert b"sk-zq7" in b"".join(stream(model).writes), model


# On the wire


def test_each_byte_is_a_write() -> None:
    answer = stream("split:tokens=2")
    head, *rest = answer.writes
    assert head.endswith(b"\r\n\r\n")
    assert {len(write) for write in rest} == {1}
    assert answer.text == answer_text(2)


@pytest.mark.parametrize(("model", "writes"), [("coalesce", 1), ("coalesce@2", 3), ("coalesce@3", 2)])
def test_several_events_are_a_write(model: str, writes: int) -> None:
    answer = stream(f"{model}:tokens=1")
    assert len(answer.writes) == writes
    assert len(answer.events) == 5


def test_a_huge_event() -> None:
    assert max(map(len, stream("huge@3").events)) > 3_000_000


def test_line_ends_and_comments_change_nothing() -> None:
    for model in ("crlf", "comments", "bom"):
        assert stream(model).text == answer_text(60)
    assert stream("comments").body.count(b"\n: keep-alive") > 60


# Tools

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


def test_a_tool_call() -> None:
    answer = stream("tool-call", tools=TOOLS)
    calls = [json.loads(event)["choices"][0]["delta"]["tool_calls"][0] for event in answer.events[1:-3]]
    assert calls[0]["function"]["name"] == "look_up"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "Paris"}
    plain = played("tool-call", tools=TOOLS).json["choices"][0]
    assert plain["finish_reason"] == "tool_calls"
    assert plain["message"]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": "".join(TOOL_ARGUMENTS)}


def test_a_tool_call_that_is_cut() -> None:
    answer = stream("tool-cut", tools=TOOLS)
    assert (answer.ending, answer.whole) == (Ending.RESET, False)
    assert b"city" in answer.body
    assert b"Par" not in answer.body

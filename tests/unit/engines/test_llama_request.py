"""What llama.cpp is sent, and what its events become."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.engines.llama_request import chat_job, text_job, to_chunks
from coterie.engines.spec import PromptCache
from coterie.wire.lingua import Prompt

MESSAGES = [{"role": "user", "content": "Hi"}]

ALWAYS = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True, "cache_prompt": True}

SAMPLING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "what is the same": (
        {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "stop": ["x"], "logit_bias": {"5": -1}},
        {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "stop": ["x"], "logit_bias": {"5": -1}},
    ),
    "zero is a value": ({"top_p": 0, "min_p": 0}, {"top_p": 0, "min_p": 0}),
    "null is none": ({"temperature": None, "seed": None, "max_tokens": None}, {}),
    "the older limit": ({"max_tokens": 5}, {"max_tokens": 5}),
    "the newer limit": ({"max_completion_tokens": 5}, {"max_tokens": 5}),
    "a limit of nothing": ({"max_tokens": 0}, {"max_tokens": 0}),
    "penalties": (
        {"frequency_penalty": 0.5, "presence_penalty": -1},
        {"frequency_penalty": 0.5, "presence_penalty": -1, "repeat_last_n": 65_536},
    ),
    "penalties of nothing": (
        {"frequency_penalty": 0, "presence_penalty": 0},
        {"frequency_penalty": 0, "presence_penalty": 0},
    ),
    "a schema": ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
    "tools": (
        {"tools": [{}], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [{}], "tool_choice": "auto", "parallel_tool_calls": False},
    ),
    "what it does not know": ({"user": "u", "n": 3, "store": False, "grammar": "root ::= x"}, {}),
}


@pytest.mark.parametrize(("body", "native"), SAMPLING.values(), ids=SAMPLING.keys())
def test_parameters(body: dict[str, Any], native: dict[str, Any]) -> None:
    chat = chat_job({**body, "messages": MESSAGES}, 0)
    assert (chat.path, chat.body) == ("/v1/chat/completions", {**ALWAYS, **native, "messages": MESSAGES})
    text = text_job(body, "Hi", 0)
    assert (text.path, text.body) == ("/v1/completions", {**ALWAYS, **native, "prompt": "Hi"})


CACHED: dict[str, tuple[dict[str, Any], PromptCache, bool]] = {
    "as it comes": ({"temperature": 0.5}, "auto", True),
    "a seed asks for the same answer": ({"seed": 0}, "auto", False),
    "so does taking the likeliest token": ({"temperature": 0}, "auto", False),
    "the operator prefers speed": ({"temperature": 0, "seed": 1}, "always", True),
    "the operator wants none": ({"temperature": 0.5}, "never", False),
}


@pytest.mark.parametrize(("body", "policy", "cached"), CACHED.values(), ids=CACHED.keys())
def test_when_a_cached_prompt_is_used(body: dict[str, Any], policy: PromptCache, cached: bool) -> None:
    assert chat_job({**body, "messages": MESSAGES}, 0, policy).body["cache_prompt"] is cached
    assert text_job(body, "Hi", 0, policy).body["cache_prompt"] is cached


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**63 - 1, -1, -(2**63)])
def test_seeds_are_numbers_that_do_not_mean_random(seed: int) -> None:
    seeds = [text_job({"seed": seed}, "Hi", index).body["seed"] for index in range(8)]
    assert all(0 <= native < 2**32 - 1 for native in seeds)
    assert len(set(seeds)) == 8
    assert seeds == [text_job({"seed": seed}, "Hi", index).body["seed"] for index in range(8)]


@pytest.mark.parametrize("prompt", ["Hi", [1, 2, 3]])
def test_a_prompt_goes_as_it_is(prompt: Prompt) -> None:
    job = text_job({}, prompt, 3)
    assert (job.body["prompt"], job.index) == (prompt, 3)


MESSAGE_FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}),
    "developer": ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
    "nulls and names": (
        {"role": "assistant", "content": None, "name": "n", "tool_calls": [{"id": "1"}], "audio": None},
        {"role": "assistant", "tool_calls": [{"id": "1"}]},
    ),
    "a result": (
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    ),
    "a refusal": ({"role": "assistant", "refusal": "no"}, {"role": "assistant", "content": "no"}),
    "parts": (
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "no"}]},
    ),
}


@pytest.mark.parametrize(("message", "native"), MESSAGE_FORMS.values(), ids=MESSAGE_FORMS.keys())
def test_messages(message: dict[str, Any], native: dict[str, Any]) -> None:
    before = {**message}
    assert chat_job({"messages": [message]}, 0).body["messages"] == [native]
    assert message == before


LOGPROBS: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "not asked": ({}, {}, 0, 0),
    "refused": ({"logprobs": False}, {}, 0, 0),
    "without alternatives": ({"logprobs": True}, {"logprobs": True, "top_logprobs": 1}, 1, 0),
    "with none": ({"logprobs": True, "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 1}, 1, 0),
    "with some": ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}, 3, 3),
}


@pytest.mark.parametrize(("body", "native", "text_native", "shown"), LOGPROBS.values(), ids=LOGPROBS.keys())
def test_log_probabilities_are_asked_for(
    body: dict[str, Any], native: dict[str, Any], text_native: int, shown: int
) -> None:
    chat = chat_job({**body, "messages": MESSAGES}, 0)
    assert {name: chat.body[name] for name in chat.body if "logprobs" in name} == native
    assert chat.top_logprobs == shown
    text = text_job(body, "Hi", 0)
    assert text.body.get("logprobs", 0) == text_native
    assert "top_logprobs" not in text.body


# What comes back.

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}

EVENTS: dict[str, tuple[dict[str, Any], list[tuple[dict[str, Any], str | None]]]] = {
    "nothing": ({}, []),
    "no choices": ({"choices": []}, []),
    "null choices": ({"choices": None, "usage": None}, []),
    "progress": ({"choices": [], "prompt_progress": {"total": 9, "processed": 3}}, []),
    "a role": ({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}]}, []),
    "text of a chat": ({"choices": [{"delta": {"content": "a"}}]}, [({"content": "a"}, None)]),
    "a role with text": ({"choices": [{"delta": {"role": "assistant", "content": "a"}}]}, [({"content": "a"}, None)]),
    "thoughts": ({"choices": [{"delta": {"reasoning_content": "a"}}]}, [({"reasoning_content": "a"}, None)]),
    "a call": ({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}, [({"tool_calls": [{"index": 0}]}, None)]),
    "the end of a chat": ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, [({}, "stop")]),
    "text": ({"choices": [{"text": "a", "index": 0, "finish_reason": None}]}, [({"content": "a"}, None)]),
    "empty text": ({"choices": [{"text": "", "finish_reason": None}]}, []),
    "the end of a text": ({"choices": [{"text": "", "finish_reason": "length"}]}, [({}, "length")]),
}


@pytest.mark.parametrize(("event", "said"), EVENTS.values(), ids=EVENTS.keys())
def test_events(event: dict[str, Any], said: list[tuple[dict[str, Any], str | None]]) -> None:
    chunks = to_chunks(text_job({}, "Hi", 4), event)
    assert chunks == [
        {"choices": [{"index": 4, "delta": delta, "logprobs": None, "finish_reason": finish}]} for delta, finish in said
    ]


def test_usage_in_an_event_of_its_own() -> None:
    native = {**USAGE, "prompt_tokens_details": {"cached_tokens": 1, "more": 5}, "timings": {}}
    job = chat_job({"messages": MESSAGES}, 0)
    assert to_chunks(job, {"choices": [], "usage": native}) == [{"choices": [], "usage": USAGE}]


def test_usage_beside_the_last_choice() -> None:
    event = {"choices": [{"text": "", "finish_reason": "stop"}], "usage": USAGE}
    finish, usage = to_chunks(text_job({}, "Hi", 0), event)
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage == {"choices": [], "usage": USAGE}


@pytest.mark.parametrize("details", [None, {}])
def test_usage_without_a_cache(details: dict[str, Any] | None) -> None:
    native = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": details}
    [chunk] = to_chunks(text_job({}, "Hi", 0), {"usage": native})
    assert chunk["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


def test_log_probabilities_come_back_as_asked() -> None:
    def entry(token: str) -> dict[str, Any]:
        return {"token": token, "logprob": -0.5, "bytes": [97]}

    native = {**entry("a"), "id": 5, "top_logprobs": [{**entry("a"), "id": 5}, {**entry("b"), "id": 6}]}
    event = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [native]}}]}
    for asked in (0, 1, 2):
        job = chat_job({"messages": MESSAGES, "logprobs": True, "top_logprobs": asked}, 0)
        [chunk] = to_chunks(job, event)
        expected = {**entry("a"), "top_logprobs": [entry("a"), entry("b")][:asked]}
        assert chunk["choices"][0]["logprobs"] == {"content": [expected], "refusal": None}

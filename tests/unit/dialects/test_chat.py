"""The chat dialect: what a good body becomes, and what a bad one is told first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.dialects.chat import DialectLimits, ParsedRequest, parse_chat
from coterie.dialects.support import CHAT_UNSUPPORTED, WITHOUT_EFFECT
from coterie.errors import ApiError
from coterie.wire.lingua import Generation

LIMITS = DialectLimits(messages=2048, choices=8)
USER = {"role": "user", "content": "hi"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
OBJECT = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}


def tool(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(*names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named(name) for name in names]}}


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}


def parse(**fields: Any) -> ParsedRequest:
    body = {"model": "m", "messages": [USER], **fields}
    return parse_chat({name: value for name, value in body.items() if value is not ...}, LIMITS)


# Good bodies.

PASSED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5, "top_p": 1, "top_k": 4, "min_p": 0.1, "seed": 7},
    {"max_tokens": 10**15},
    {"max_completion_tokens": 5, "stop": ["a"], "logit_bias": {"5": -100}},
    {"frequency_penalty": -2, "presence_penalty": 2},
    {"logprobs": True, "top_logprobs": 3},
    {"logprobs": False},
    {"tools": [tool(parameters=OBJECT, description="d", strict=True), tool("g", parameters={}), tool("h")]},
    {"tools": [tool()], "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [tool(), tool("g")], "tool_choice": named("g")},
    {"tools": [tool(), tool("g")], "tool_choice": allowed("g", "f")},
    {"tool_choice": "none"},
    {"response_format": {"type": "json_object"}},
    {"response_format": schema(OBJECT)},
    {"response_format": schema({})},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE]}]},
]


@pytest.mark.parametrize("fields", PASSED)
def test_what_a_provider_is_to_honour_is_passed_as_it_is(fields: dict[str, Any]) -> None:
    parsed = parse(**fields)
    assert parsed == ParsedRequest(Generation("m", {"messages": [USER], **fields}, 1), False, False, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s"},
        {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "prompt_cache_options": {"a": 1}},
        {
            "store": False,
            "service_tier": "auto",
            "modalities": ["text"],
            "verbosity": "medium",
            "reasoning_effort": "none",
        },
        dict.fromkeys(["temperature", "stop", "tools", "tool_choice", "response_format", "n", "stream", "store"]),
        dict.fromkeys([*CHAT_UNSUPPORTED, *WITHOUT_EFFECT]),
    ],
)
def test_what_changes_nothing_is_taken_out(fields: dict[str, Any]) -> None:
    assert parse(**fields).generation.body == {"messages": [USER]}


def test_what_is_the_edges() -> None:
    parsed = parse(n=3, stream=True, stream_options={"include_usage": True})
    assert parsed == ParsedRequest(Generation("m", {"messages": [USER]}, 3), True, True, 3)
    assert not parse(stream=True, stream_options={}).include_usage
    assert not parse(stream=False, stream_options=None).stream


def test_the_callers_body_is_not_changed() -> None:
    body = {"model": "m", "messages": [USER], "n": 2, "store": False, "tools": [tool(parameters=OBJECT)]}
    before = copy.deepcopy(body)
    parse_chat(body, LIMITS)
    assert body == before


# Bad bodies.

BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no model": ({"model": ...}, "missing_required_parameter", "model"),
    "model null": ({"model": None}, "missing_required_parameter", "model"),
    "an empty model": ({"model": ""}, "missing_required_parameter", "model"),
    "a model of 5 MB": ({"model": "m" * 5_000_000}, "string_above_max_length", "model"),
    "no messages": ({"messages": ...}, "missing_required_parameter", "messages"),
    "10,000 messages": ({"messages": [USER] * 10_000}, "array_above_max_length", "messages"),
    "10,000 messages that are none": ({"messages": [5] * 10_000}, "array_above_max_length", "messages"),
    "an unknown field": ({"temprature": 1}, "unknown_parameter", "temprature"),
    "a field without a name": ({"": 1}, "unknown_parameter", "['']"),
    "a million fields": ({str(i): i for i in range(100_000)}, "unknown_parameter", "0"),
    "n beyond the operator's limit": ({"n": 9}, "integer_above_max_value", "n"),
    "n beyond reason": ({"n": 10**9}, "integer_above_max_value", "n"),
    "a negative max_tokens": ({"max_tokens": -5}, "integer_below_min_value", "max_tokens"),
    "both limits of tokens": ({"max_tokens": 5, "max_completion_tokens": 5}, "invalid_value", "max_tokens"),
    "stop with 1,000 strings": ({"stop": ["x"] * 1000}, "array_above_max_length", "stop"),
    "options without a stream": ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    "options with stream false": ({"stream": False, "stream_options": {}}, "invalid_value", "stream_options"),
    "top_logprobs alone": ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
    "top_logprobs without logprobs": ({"top_logprobs": 0, "logprobs": False}, "invalid_value", "top_logprobs"),
    "a tool of an unknown kind": ({"tools": [tool(), {"type": "web_search"}]}, "invalid_value", "tools[1].type"),
    "a custom tool": (
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "unsupported_value", "tools[0].type",
    ),
    "two tools of one name": ({"tools": [tool(), tool("g"), tool()]}, "invalid_value", "tools[2].function.name"),
    "parameters that are no object": (
        {"tools": [tool(parameters={"type": "string"})]}, "invalid_function_parameters", "tools[0].function.parameters",
    ),
    "parameters that are no schema": (
        {"tools": [tool("g"), tool(parameters={"type": "object", "properties": {"a": {"type": "text"}}})]},
        "invalid_function_parameters", "tools[1].function.parameters.properties.a.type",
    ),
    "a choice without tools": ({"tool_choice": "auto"}, "invalid_value", "tool_choice"),
    "a named choice without tools": ({"tool_choice": named("f")}, "invalid_value", "tool_choice"),
    "a choice with no tools": ({"tools": [], "tool_choice": "required"}, "invalid_value", "tool_choice"),
    "parallel calls without tools": ({"parallel_tool_calls": False}, "invalid_value", "parallel_tool_calls"),
    "a choice of an unknown function": (
        {"tools": [tool()], "tool_choice": named("g")}, "invalid_value", "tool_choice.function.name",
    ),
    "an unknown function among those allowed": (
        {"tools": [tool()], "tool_choice": allowed("f", "g")}, "invalid_value",
        "tool_choice.allowed_tools.tools[1].function.name",
    ),
    "a format that is no schema": (
        {"response_format": schema({"type": "strange"})}, "invalid_json_schema",
        "response_format.json_schema.schema.type",
    ),
    "a format with an unknown keyword": (
        {"response_format": schema({"propertys": {}})}, "invalid_json_schema",
        "response_format.json_schema.schema.propertys",
    ),
    "a result without a call": (
        {"messages": [{"role": "tool", "tool_call_id": "c", "content": "1"}]}, "invalid_value", "messages[0].role",
    ),
    "audio to come out": ({"audio": {"voice": "alloy"}}, "unsupported_parameter", "audio"),
    "functions": ({"functions": [{"name": "f"}]}, "unsupported_parameter", "functions"),
    "store": ({"store": True}, "unsupported_value", "store"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), BAD.values(), ids=BAD.keys())
def test_bad_bodies(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n": 9}, "Expected a value <= 8, but got 9 instead."),
        ({"messages": [USER] * 10_000}, "maximum length 2048, but got an array with length 10000 instead."),
        ({"tools": [tool()], "tool_choice": named("g")}, "'g' is not the name of one of the 'tools'"),
        ({"functions": []}, "Use 'tools' instead."),
        (
            {"temperature": 200},
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 200",
        ),
        (
            {"messages": [{"role": "tooool"}]},
            "'tooool'. Supported values are: 'system', 'developer', 'user', 'assistant'",
        ),
    ],
)
def test_words(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(**fields)
    assert words in caught.value.message


def test_the_first_mistake_is_told_in_the_promised_order() -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"model": None}, "model"),
        ({"messages": [USER] * 3000}, "messages"),
        ({"store": True}, "store"),
        ({"temperature": 5}, "temperature"),
        ({"stream_options": {}}, "stream_options"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"tools": [tool(), tool()]}, "tools[1].function.name"),
        ({"response_format": schema({"type": "x"})}, "response_format.json_schema.schema.type"),
    ]
    for place in range(len(mistakes)):
        fields = {name: value for mistake, _ in mistakes[place:] for name, value in mistake.items()}
        with pytest.raises(ApiError) as caught:
            parse(**fields)
        assert caught.value.param == mistakes[place][1]


# Any body.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4) | st.sampled_from(["user", "assistant", "tool", "text", "function", "auto", "\ue000text"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["role", "content", "type", "function", "name", "text", "[key]", "\ue000string", ""])
        | st.text(max_size=3),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
names = st.sampled_from(sorted({*CHAT_UNSUPPORTED, *WITHOUT_EFFECT, *(name for fields in PASSED for name in fields)}))


def check(body: dict[str, Any]) -> None:
    try:
        parsed = parse_chat(body, LIMITS)
    except ApiError as error:
        assert error.entry.fault == "caller"  # noqa: PT017 - what else is raised fails the test
        assert not error.entry.takes_param or error.param  # noqa: PT017
    else:
        assert parsed.generation.body["messages"] == body["messages"]


@given(st.dictionaries(names | st.text(max_size=3), json_values, max_size=4), st.booleans())
def test_any_object_is_parsed_or_a_failure_with_a_path(body: dict[str, Any], whole: bool) -> None:
    check({"model": "m", "messages": [USER], **body} if whole else body)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container within ``value`` with each of its keys."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in items] + [place for _, child in items for place in places(child)]


CONVERSATION = [
    {"role": "system", "content": [{"type": "text", "text": "s"}]},
    {"role": "user", "content": [{"type": "text", "text": "a"}, PICTURE], "name": "n"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c", "content": "1"},
]  # fmt: skip
WHOLE = {
    **{name: value for fields in PASSED for name, value in fields.items() if name != "max_tokens"},
    "model": "m", "messages": CONVERSATION, "stream": True, "stream_options": {"include_usage": True}, "logprobs": True,
    "tools": [tool(parameters=OBJECT), tool("g")], "tool_choice": allowed("g"),
}  # fmt: skip


def test_the_body_that_is_mutated_is_good() -> None:
    assert parse_chat(WHOLE, LIMITS).generation.body["messages"] == CONVERSATION


@given(st.data(), json_values)
def test_a_mutated_body_is_parsed_or_a_failure_with_a_path(data: st.DataObject, value: Any) -> None:
    body = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 2))):
        container, key = data.draw(st.sampled_from(places(body)))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "replace":
            container[key] = value
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[data.draw(st.text(max_size=3))] = value
        else:
            container.append(value)
    check(body)

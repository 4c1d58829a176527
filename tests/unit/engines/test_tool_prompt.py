import json
from typing import Any

import pytest

from coterie.engines.tool_prompt import MOST_CALLS, emulate_tools
from coterie.errors import ApiError

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city", "description": "Its name"}},
        "required": ["city"],
        "$defs": {"city": {"type": "string", "maxLength": 20}},
    },
}
CLOCK: dict[str, Any] = {"name": "clock"}
USER = {"role": "user", "content": "Hello"}

CONTENT = {
    "type": "object",
    "properties": {"content": {"type": "string"}},
    "required": ["content"],
    "additionalProperties": False,
}
CITY = {"type": "string", "maxLength": 20}
WEATHER_ARGUMENTS = {
    "type": "object",
    "properties": {"city": {"description": "Its name", "$ref": "#/$defs/r0x"}},
    "required": ["city"],
}
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


def emulated(*functions: dict[str, Any], messages: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    tools = [{"type": "function", "function": function} for function in functions]
    return emulate_tools({"messages": messages or [USER], "tools": tools, **fields})


def schema_of(body: dict[str, Any]) -> dict[str, Any]:
    assert body["response_format"]["type"] == "json_schema"
    schema: dict[str, Any] = body["response_format"]["json_schema"]["schema"]
    return schema


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def calls(*alternatives: dict[str, Any], most: int = MOST_CALLS) -> dict[str, Any]:
    listed = {"type": "array", "items": {"anyOf": list(alternatives)}, "minItems": 1, "maxItems": most}
    return {
        "type": "object",
        "properties": {"tool_calls": listed},
        "required": ["tool_calls"],
        "additionalProperties": False,
    }


def chosen(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [chosen(name) for name in names]}}


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}, {"tool_choice": None}, {"parallel_tool_calls": True}])
def test_auto_lets_the_model_call_or_answer(choice: dict[str, Any]) -> None:
    assert schema_of(emulated(WEATHER, CLOCK, **choice)) == {
        "anyOf": [calls(call("weather", WEATHER_ARGUMENTS), call("clock", NO_ARGUMENTS)), CONTENT],
        "$defs": {"r0x": CITY},
    }


def test_required_leaves_only_calls() -> None:
    assert schema_of(emulated(CLOCK, tool_choice="required")) == calls(call("clock", NO_ARGUMENTS))


def test_a_named_function_is_called_exactly_once() -> None:
    body = emulated(WEATHER, CLOCK, tool_choice=chosen("clock"))
    assert schema_of(body) == calls(call("clock", NO_ARGUMENTS), most=1)
    assert "weather" not in json.dumps(body["messages"])


def test_without_parallel_calls_there_is_at_most_one() -> None:
    body = emulated(CLOCK, tool_choice="required", parallel_tool_calls=False)
    assert schema_of(body) == calls(call("clock", NO_ARGUMENTS), most=1)


def test_allowed_tools_are_the_only_ones() -> None:
    required = emulated(WEATHER, CLOCK, tool_choice=allowed("required", "clock"))
    assert schema_of(required) == calls(call("clock", NO_ARGUMENTS))
    auto = emulated(WEATHER, CLOCK, tool_choice=allowed("auto", "clock"))
    assert schema_of(auto) == {"anyOf": [calls(call("clock", NO_ARGUMENTS)), CONTENT]}


def test_definitions_of_several_functions_stay_apart() -> None:
    other = {"name": "other", "parameters": {**WEATHER["parameters"], "$defs": {"city": {"type": "integer"}}}}
    schema = schema_of(emulated(WEATHER, other, tool_choice="required"))
    assert schema["$defs"] == {"r0x": CITY, "r1x": {"type": "integer"}}
    listed = schema["properties"]["tool_calls"]["items"]["anyOf"]
    places = [tool["properties"]["arguments"]["properties"]["city"]["$ref"] for tool in listed]
    assert places == ["#/$defs/r0x", "#/$defs/r1x"]


@pytest.mark.parametrize(
    ("response_format", "wanted"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": 1}}}, {"const": 1}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": None}}, {"type": "object"}),
    ],
)
def test_an_answer_beside_functions_follows_the_response_format(response_format: Any, wanted: Any) -> None:
    body = emulated(CLOCK, response_format=response_format)
    answer = schema_of(body)["anyOf"][1]
    assert (answer["properties"], answer["required"]) == ({"json": wanted}, ["json"])
    assert f"follows the schema {json.dumps(wanted)}" in body["messages"][0]["content"]


def test_text_beside_functions_is_content() -> None:
    assert schema_of(emulated(CLOCK, response_format={"type": "text"}))["anyOf"][1] == CONTENT


def test_the_body_keeps_nothing_of_tools_and_everything_else() -> None:
    body = emulated(CLOCK, tool_choice="auto", parallel_tool_calls=True, temperature=0.5, max_tokens=7)
    assert body.keys() == {"messages", "temperature", "max_tokens", "response_format"}
    assert (body["temperature"], body["max_tokens"]) == (0.5, 7)


def test_the_functions_are_told_before_everything_without_a_system_message() -> None:
    told, user = emulated(WEATHER, CLOCK)["messages"]
    assert (told["role"], user) == ("system", USER)
    lines = told["content"].splitlines()
    assert [json.loads(line) for line in lines[1:3]] == [WEATHER, CLOCK]
    assert '{"tool_calls": [' in lines[3]
    assert '{"content": "TEXT"}' in lines[4]


@pytest.mark.parametrize("choice", ["required", chosen("clock")])
def test_a_model_that_must_call_is_not_told_of_content(choice: Any) -> None:
    told = emulated(CLOCK, tool_choice=choice)["messages"][0]["content"]
    assert '{"tool_calls": [' in told
    assert "content" not in told


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_functions_are_appended_to_the_first_system_message(role: str) -> None:
    first, second = {"role": role, "content": "Be kind."}, {"role": "system", "content": "Be brief."}
    user, told, other = emulated(CLOCK, messages=[USER, first, second])["messages"]
    assert (user, other, told["role"]) == (USER, second, role)
    assert told["content"].startswith("Be kind.\n\nFunctions")


def test_the_functions_are_appended_to_content_of_parts() -> None:
    parts = [{"type": "text", "text": "Be kind."}]
    told = emulated(CLOCK, messages=[{"role": "system", "content": parts}])["messages"][0]
    assert told["content"][0] == parts[0]
    assert told["content"][1]["text"].startswith("\n\nFunctions")
    assert len(parts) == 1


def _earlier(arguments: str = '{"city": "Rome"}', **fields: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}], **fields}


SKY = [{"type": "text", "text": '{"sky": '}, {"type": "text", "text": '"blue"}'}]

HISTORY = [
    USER,
    {
        **_earlier(content=None),
        "tool_calls": [
            *_earlier()["tool_calls"],
            {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "c2", "content": "12:00"},
    {"role": "tool", "tool_call_id": "c1", "content": SKY},
    {"role": "tool", "tool_call_id": "c9", "content": "?"},
    {"role": "assistant", "content": "It is noon."},
]


@pytest.mark.parametrize("fields", [{"tools": []}, {"tool_choice": "none"}, {}])
def test_earlier_calls_and_results_are_told_in_json(fields: dict[str, Any]) -> None:
    user, called, results, said = emulated(CLOCK, messages=HISTORY, **fields)["messages"][-4:]
    assert (user, said) == (USER, HISTORY[-1])
    assert (called["role"], results["role"]) == ("assistant", "user")
    assert "tool_calls" not in called
    assert json.loads(called["content"]) == {
        "tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}, {"name": "clock", "arguments": ""}]
    }
    assert json.loads(results["content"]) == {
        "tool_results": [
            {"name": "clock", "result": "12:00"},
            {"name": "weather", "result": {"sky": "blue"}},
            {"tool_call_id": "c9", "result": "?"},
        ]
    }


@pytest.mark.parametrize("content", ["Wait.", [{"type": "text", "text": "Wa"}, {"type": "refusal", "refusal": "it."}]])
def test_text_beside_earlier_calls_stays_before_them(content: Any) -> None:
    message = emulated(CLOCK, messages=[USER, _earlier(content=content)])["messages"][-1]
    assert message["content"] == 'Wait.\n{"tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}'


@pytest.mark.parametrize("arguments", ["{broken", '{"a": "\\ud800"}', "[" * 3000, "NaN"])
def test_earlier_arguments_that_are_no_json_are_told_as_text(arguments: str) -> None:
    message = emulated(CLOCK, messages=[_earlier(arguments)])["messages"][-1]
    assert json.loads(message["content"])["tool_calls"][0]["arguments"] == arguments


def test_with_none_the_model_is_not_told_and_not_held() -> None:
    body = emulated(CLOCK, tool_choice="none", stop=["x"])
    assert body == {"messages": [USER], "stop": ["x"]}


def test_with_none_a_response_format_still_holds() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"allOf": [{"type": "null"}]}}}
    assert schema_of(emulated(CLOCK, tool_choice="none", response_format=schema)) == {"type": "null"}


def test_stop_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        emulated(CLOCK, stop="\n")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "stop")


def test_a_choice_of_no_function_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        emulated(CLOCK, tool_choice=chosen("x"))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "tool_choice")


def test_the_body_is_not_changed() -> None:
    body = {"messages": list(HISTORY), "tools": [{"type": "function", "function": WEATHER}]}
    before = json.dumps(body)
    emulate_tools(body)
    assert json.dumps(body) == before

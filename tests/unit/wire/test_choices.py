"""The choices of an answer: the table of states, and everything that a provider may not send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.chunks import USAGE, any_chunks, chunk, fragment, logprob, text, usage

from coterie.errors import ApiError
from coterie.wire.choices import FINISH_REASONS, Choices
from coterie.wire.lingua import Chunk


def refused(*chunks: Any, count: int = 1, calls: bool = True) -> ApiError:
    choices = Choices(count, calls=calls)
    for good in chunks[:-1]:
        choices.admit(good)
    with pytest.raises(ApiError) as caught:
        choices.admit(chunks[-1])
    assert caught.value.code == "upstream_protocol_error"
    assert caught.value.detail
    return caught.value


def broken_off(*chunks: Any, count: int = 1) -> None:
    choices = Choices(count)
    for each in chunks:
        choices.admit(each)
    with pytest.raises(ApiError) as caught:
        choices.check_whole()
    assert caught.value.code == "upstream_stream_interrupted"


@pytest.mark.parametrize("reason", sorted(FINISH_REASONS - {"tool_calls"}))
def test_a_choice_goes_from_new_over_open_to_finished(reason: str) -> None:
    choices = Choices(1)
    assert choices.admit(text("a"))[0]["first"]
    assert not choices.admit(text("b"))[0]["first"]
    assert not choices.finished
    assert choices.admit(chunk(finish=reason)) == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason, "first": False}
    ]
    assert choices.finished
    choices.admit(usage())
    choices.check_whole()
    assert choices.usage == USAGE


def test_a_choice_may_finish_at_once() -> None:
    choices = Choices(1)
    assert choices.admit(chunk(finish="stop"))[0]["first"]
    assert choices.finished


def test_an_answer_is_whole_with_every_finish_reason_and_the_usage() -> None:
    broken_off()
    broken_off(usage())
    broken_off(text("a"), usage())
    broken_off(chunk(finish="stop"))
    broken_off(chunk(finish="stop"), usage(), count=2)
    broken_off(chunk(finish="stop"), {"choices": [], "usage": {}})
    broken_off({**chunk(finish="stop"), "usage": None})


def test_a_provider_may_say_that_it_does_not_count() -> None:
    choices = Choices(1)
    choices.admit(chunk(finish="stop"))
    choices.admit({"choices": [], "usage": None})
    choices.check_whole()
    assert choices.usage is None


def test_what_a_choice_has_beyond_the_protocol_is_kept_beside_it() -> None:
    entry = {"index": 0, "delta": {"content": "a"}, "finish_reason": None, "extra": {"stop_reason": 7}}
    assert Choices(1).admit({"choices": [entry]})[0]["extra"] == {"stop_reason": 7}


def test_what_came_beside_nothing_goes_out_with_what_the_choice_says_next() -> None:
    choices = Choices(2)
    silent = {"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}
    assert choices.admit({"choices": [{**silent, "extra": {"a": 1, "b": 1}}]}) == []
    assert choices.admit({"choices": [{**silent, "extra": {"b": 2}}]}) == []
    assert "extra" not in choices.admit(text("x", 1))[0]
    (said,) = choices.admit(chunk({"content": "y"}, extra={"c": 3}))
    assert said["first"]
    assert said["extra"] == {"a": 1, "b": 2, "c": 3}
    assert "extra" not in choices.admit(text("z"))[0]
    assert choices.admit({"choices": [{**silent, "extra": {"d": 4}}]}) == []
    assert choices.admit(text("z"))[0]["extra"] == {"d": 4}
    assert choices.admit(chunk({"content": "z"}, extra={"e": 5}))[0]["extra"] == {"e": 5}


def test_what_is_kept_for_later_is_bounded() -> None:
    choices = Choices(1)
    for number in range(1000):
        choices.admit(chunk(extra={f"field {number}": number}))
    assert len(choices.admit(text("x"))[0]["extra"]) <= 64


def test_what_is_plain_goes_the_short_way() -> None:
    choices = Choices(1)
    (plain,) = text("a")["choices"]
    said = {"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None, "first": True}
    assert choices.plainly({**plain, "delta": {"role": "assistant", "content": ""}}) == []
    assert choices.plainly({**plain, "delta": {"role": "assistant", "content": "a"}}) == [said]
    assert choices.plainly(plain) == [{**said, "first": False}]
    for other in ({"x": 1}, {"content": "a", "x": 1}, {"content": ["a"]}, None, "a"):
        assert choices.plainly({**plain, "delta": other}) is None
    assert choices.plainly({**plain, "extra": {"x": 1}}) is None
    assert choices.plainly({**plain, "finish_reason": "tool_calls"}) is None
    with pytest.raises(ApiError):
        choices.plainly({**plain, "delta": {"content": "\ud800"}})
    assert choices.plainly({**plain, "finish_reason": "stop"}) == [{**said, "finish_reason": "stop", "first": False}]
    assert choices.plainly(plain) is None


@given(st.lists(any_chunks, max_size=8), st.integers(0, 8))
def test_the_short_way_and_the_long_one_lead_to_the_same(chunks: list[Any], place: int) -> None:
    short, long = Choices(2), Choices(2)
    for each in [*chunks[:place], text("a"), text("b"), *chunks[place:]]:
        entries = each.get("choices")
        if not isinstance(entries, list) or len(entries) != 1:
            continue
        try:
            expected = long.admit({"choices": [*entries, {"index": 0, "delta": {}}]})  # two are never gone short with
        except ApiError:
            with pytest.raises(ApiError):
                short.admit({"choices": entries})
            return
        assert short.admit({"choices": entries}) == expected
    assert short.finished == long.finished


@pytest.mark.parametrize(
    "delta", [{}, None, {"role": "assistant"}, {"content": ""}, {"content": None, "tool_calls": []}]
)
def test_what_says_nothing_is_left_out(delta: Any) -> None:
    choices = Choices(1)
    assert choices.admit(chunk(delta)) == []
    assert choices.admit(text("a"))[0]["first"]


def test_chunks_without_choices_say_nothing() -> None:
    choices = Choices(1)
    chunks: list[Chunk] = [{}, {"choices": None}, {"choices": []}, {"usage": None}, {"choices": [], "usage": {}}]
    assert [choices.admit(each) for each in chunks] == [[]] * 5


def test_log_probabilities_of_a_token_without_text_are_said() -> None:
    said = Choices(1).admit(chunk({"content": ""}, logprobs={"content": [logprob("t")], "refusal": None}))
    assert [choice["logprobs"]["content"][0]["token"] for choice in said] == ["t"]


def test_a_role_and_what_is_empty_or_foreign_is_taken_out_of_a_delta() -> None:
    delta = {
        "role": "user",
        "content": "a",
        "refusal": None,
        "tool_calls": None,
        "reasoning_content": "b",
        "audio": {"x": 1},
    }
    assert Choices(1).admit(chunk(delta))[0]["delta"] == {
        "content": "a",
        "reasoning_content": "b",
        "audio": {"x": 1},
    }


def test_tool_calls_get_their_fields_and_keep_others() -> None:
    choices = Choices(1)
    first = choices.admit(chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}, "x": 1}]}))
    assert first[0]["delta"]["tool_calls"] == [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}, "x": 1}
    ]
    more = choices.admit(chunk(fragment(0, "c", "f", "{}")))  # some servers repeat id and name
    assert more[0]["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": "{}"}}]
    second = choices.admit(chunk(fragment(1, "d", "g", "")))
    assert second[0]["delta"]["tool_calls"][0]["id"] == "d"
    choices.admit(chunk(finish="tool_calls"))


def test_tool_calls_that_have_begun_go_on_in_any_order() -> None:
    choices = Choices(1)
    for delta in (fragment(0, "c", "f", ""), fragment(1, "d", "g", "")):
        choices.admit(chunk(delta))
    for index, identity, name in ((0, "c", "f"), (1, None, None), (0, None, "f"), (1, "d", None)):
        (said,) = choices.admit(chunk(fragment(index, identity, name, "{")))
        assert said["delta"]["tool_calls"] == [{"index": index, "function": {"arguments": "{"}}]
    choices.admit(chunk(fragment(2, "e", "g")))
    choices.admit(chunk(finish="tool_calls"))


HEAD = chunk(fragment(0, "c", "f", ""))

REFUSED: dict[str, tuple[Any, ...]] = {
    "a delta after the finish reason": (chunk(finish="stop"), text("a")),
    "a second finish reason": (chunk(finish="stop"), chunk(finish="stop")),
    "choices that are none": ({"choices": "x"},),
    "a choice that is none": ({"choices": [1]},),
    "no index": ({"choices": [{"delta": {"content": "a"}}]},),
    "a negative index": (chunk({"content": "a"}, index=-1),),
    "an index that nobody asked for": (text("a", 1),),
    "true for an index": (chunk({"content": "a"}, index=True),),
    "an index in words": (chunk({"content": "a"}, index="0"),),
    "a delta that is none": (chunk("x"),),
    "text that is none": (chunk({"content": 5}),),
    "text in parts": (chunk({"content": [{"type": "text"}]}),),
    "a refusal that is none": (chunk({"refusal": True}),),
    "a text with a lone surrogate": (text("\ud800"),),
    "a function call of the old kind": (chunk({"function_call": {"name": "f"}}),),
    "an unknown finish reason": (chunk(finish="error"),),
    "the finish reason of the old kind": (chunk(finish="function_call"),),
    "a finish reason that is none": (chunk(finish=["stop"]),),
    "an empty finish reason": (chunk(finish=""),),
    "tool calls that never were": (chunk(finish="tool_calls"),),
    "tool calls that are none": (chunk({"tool_calls": "x"}),),
    "a tool call that is none": (chunk({"tool_calls": [1]}),),
    "a tool call without a head": (chunk(fragment(0, arguments="{}")),),
    "a tool call without a name": (chunk(fragment(0, "c", None, "{}")),),
    "a tool call without an id": (chunk(fragment(0, None, "f", "{}")),),
    "a tool call without an index": (chunk({"tool_calls": [{"id": "c", "function": {"name": "f"}}]}),),
    "true for a tool call's index": (HEAD, chunk(fragment(True, "d", "f"))),
    "a tool call with a gap": (chunk(fragment(1, "c", "f")),),
    "a tool call of another kind": (chunk({"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {}}]}),),
    "a function that is none": (chunk({"tool_calls": [{"index": 0, "id": "c", "function": "f"}]}),),
    "arguments that are none": (chunk(fragment(0, "c", "f", {"a": 1})),),
    "an earlier tool call that changes its id": (HEAD, chunk(fragment(1, "d", "g")), chunk(fragment(0, "d"))),
    "an earlier tool call that changes its name": (HEAD, chunk(fragment(1, "d", "g")), chunk(fragment(0, None, "g"))),
    "a tool call that leaves one out": (HEAD, chunk(fragment(2, "d", "g"))),
    "a tool call that changes its id": (HEAD, chunk(fragment(0, "d"))),
    "a tool call that changes its name": (HEAD, chunk(fragment(0, None, "g"))),
    "no tool call before the first": (chunk(fragment(-1)),),
    "usage that is none": ({"usage": "x"},),
    "usage without a count": ({"usage": {"prompt_tokens": 1, "completion_tokens": 1}},),
    "usage below nothing": (usage(prompt_tokens=-1, total_tokens=1),),
    "usage in words": (usage(prompt_tokens="5"),),
    "usage that does not add up": (usage(total_tokens=8),),
    "usage beyond all counting": (usage(prompt_tokens=2**64 - 1, total_tokens=2**64 + 1),),
    "further fields that are none": (chunk({"content": "a"}, extra="x"),),
    "further fields that are none, beside nothing": (chunk(extra=["x"]),),
    "log probabilities that are none": (chunk({"content": "a"}, logprobs=5),),
    "log probabilities without a list": (chunk({"content": "a"}, logprobs={"content": "x"}),),
    "log probabilities without a number": (chunk({"content": "a"}, logprobs={"content": [logprob("t", True)]}),),
    "log probabilities without a token": (chunk({"content": "a"}, logprobs={"content": [{"logprob": 1}]}),),
    "log probabilities without alternatives": (
        chunk({"content": "a"}, logprobs={"content": [{"token": "t", "logprob": -1}]}),
    ),
    "log probabilities with null for alternatives": (
        chunk({"content": "a"}, logprobs={"content": [logprob("t", top_logprobs=None)]}),
    ),
    "a lone surrogate later": (text("a"), text("\udfff")),
    "a token with a lone surrogate": (chunk({"content": "a"}, logprobs={"content": [logprob("\ud800")]}),),
    "broken alternatives": (
        chunk({"content": "a"}, logprobs={"content": [logprob("t", top_logprobs=[{"token": 1, "logprob": 1}])]}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("chunks", REFUSED.values(), ids=REFUSED.keys())
def test_what_may_not_be_sent(chunks: tuple[Any, ...]) -> None:
    refused(*chunks)


def test_a_dialect_without_tool_calls_refuses_them() -> None:
    refused(HEAD, calls=False)
    refused(chunk(finish="tool_calls"), calls=False)


@given(st.lists(any_chunks, max_size=8))
def test_whatever_comes_is_admitted_or_a_failure_of_the_catalogue(chunks: list[Any]) -> None:
    choices = Choices(2)
    for each in chunks:
        try:
            for said in choices.admit(each):
                assert said.keys() == {"index", "delta", "logprobs", "finish_reason", "first"}
        except ApiError as error:
            assert error.code == "upstream_protocol_error"  # noqa: PT017 - what else is raised fails the test
            return


# The plain way


def without_the_plain_way(count: int, *, calls: bool) -> Choices:
    """Choices that look at everything in full."""
    choices = Choices(count, calls=calls)
    choices.plainly = lambda entry: None  # type: ignore[method-assign]
    return choices


@given(st.lists(any_chunks, max_size=8), st.integers(1, 2), st.booleans())
def test_the_plain_way_leads_where_the_usual_one_does(chunks: list[Any], count: int, calls: bool) -> None:
    plain, usual = Choices(count, calls=calls), without_the_plain_way(count, calls=calls)
    for each in chunks:
        said = [outcome(choices, each) for choices in (plain, usual)]
        assert said[0] == said[1]
        assert plain._choices == usual._choices
        if isinstance(said[0], str):
            break


def outcome(choices: Choices, chunk: Any) -> Any:
    """What is admitted of ``chunk``, or why it is refused."""
    try:
        return choices.admit(chunk)
    except ApiError as error:
        return str(error.detail)


@given(st.lists(any_chunks, max_size=8), st.integers(1, 2))
def test_whether_a_choice_goes_on_is_what_a_piece_of_text_would_tell(chunks: list[Any], count: int) -> None:
    choices = Choices(count)
    for each in chunks:
        if isinstance(outcome(choices, each), str):
            break
    for index in range(count):
        goes_on = choices.goes_on(index)
        assert choices.goes_on(index) is goes_on  # it changes nothing
        alone = {"index": index, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None, "first": False}
        assert goes_on is (outcome(choices, text("x", index)) == [alone])


def test_a_choice_goes_on_from_its_beginning_to_its_end() -> None:
    choices = Choices(2)
    assert not choices.goes_on(0)
    choices.admit(text("a"))
    assert (choices.goes_on(0), choices.goes_on(1)) == (True, False)
    choices.admit(chunk(extra={"x": 1}))  # goes out with the next
    assert not choices.goes_on(0)
    choices.admit(text("b"))
    assert choices.goes_on(0)
    choices.admit(chunk(finish="stop"))
    assert not choices.goes_on(0)

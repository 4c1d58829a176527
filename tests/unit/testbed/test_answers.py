from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.testbed.answers import (
    Answer,
    AskError,
    answer_text,
    embeddings_body,
    position,
    prompt_position,
    read_ask,
    token_text,
)

USER = {"role": "user", "content": "one two three"}


def chat_answer(tokens: int = 0, seed: int = 0, **body: Any) -> Answer:
    ask = read_ask("chat", {"model": "m", "messages": [USER], **body})
    return Answer(ask, tokens=tokens, seed=seed, identity="1", created=7)


def continuing(text: str) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": text}]}


@pytest.mark.parametrize(
    ("tokens", "body", "count", "finish"),
    [
        (0, {}, 60, "stop"),
        (5, {}, 5, "stop"),
        (0, {"max_tokens": 9}, 9, "length"),
        (0, {"max_tokens": 9, "max_completion_tokens": 8}, 8, "length"),
        (5, {"max_tokens": 9}, 5, "stop"),
        (5, {"max_tokens": 5}, 5, "stop"),
        (5, {"max_tokens": 3}, 3, "length"),
        (0, continuing(" w0 w1"), 58, "stop"),
        (5, continuing(" w0 w1"), 3, "stop"),
        (0, {**continuing(" w0 w1"), "max_tokens": 9}, 9, "length"),
        (5, {**continuing(" w0 w1"), "max_tokens": 3}, 3, "stop"),
        (5, {**continuing(" w0 w1"), "max_tokens": 2}, 2, "length"),
        (2, continuing(" w0 w1 w2 w3"), 0, "stop"),
    ],
)
def test_how_many_tokens(tokens: int, body: dict[str, Any], count: int, finish: str) -> None:
    answer = chat_answer(tokens, **body)
    assert (answer.count, answer.finish) == (count, finish)


@given(st.integers(0, 120), st.integers(0, 3), st.integers(0, 6))
def test_a_continuation_is_exactly_what_was_left(said: int, seed: int, extra_chars: int) -> None:
    whole = answer_text(130, seed)
    prefix = whole[: len(answer_text(said, seed)) + extra_chars]
    rest = chat_answer(130, seed, **continuing(prefix))
    assert prefix + rest.text(rest.count) == whole


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (0, 0)),
        (" ", (0, 1)),
        (" w0", (1, 0)),
        (" w0 ", (1, 1)),
        (" w0 w1", (2, 0)),
        ("w0", None),
        (" w0 w2", None),
        (" w0\n", None),
        ("Sure!", None),
        (answer_text(10) + " w1", (10, 3)),
        (answer_text(12), (12, 0)),
    ],
)
def test_position(text: str, found: tuple[int, int] | None) -> None:
    assert position(text) == found


def test_another_seed_is_another_text() -> None:
    assert answer_text(2, seed=3) == token_text(0, 3) + token_text(1, 3) != answer_text(2)
    assert position(answer_text(2), seed=3) is None


def test_position_in_a_prompt() -> None:
    assert prompt_position("Say this:") is None
    assert prompt_position("Say this: w0 w1") == (2, 0)
    assert prompt_position("Say this: w0 w1 or that") is None


def test_what_is_not_the_beginning_of_the_answer_is_not_continued() -> None:
    answer = chat_answer(**continuing("Well,"))
    assert (answer.continued_from, answer.count) == (None, 60)
    assert answer.usage(60)["prompt_tokens"] == 4


def test_parts_of_content_are_read() -> None:
    parts = [{"type": "text", "text": " w0"}, {"type": "text", "text": " w1"}]
    answer = chat_answer(messages=[USER, {"role": "assistant", "content": parts}])
    assert (answer.continued_from, answer.usage(1)["prompt_tokens"]) == (2, 5)


@pytest.mark.parametrize("body", [{"continue_final_message": True}, {"messages": [{**USER, "prefix": True}]}])
def test_a_flag_asks_to_continue(body: dict[str, Any]) -> None:
    assert chat_answer(**body).ask.flagged


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
    ],
)
def test_mistakes_name_their_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(AskError) as caught:
        chat_answer(**body)
    assert caught.value.param == param


_scalars = st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=3)
_keys = st.sampled_from(["role", "content", "text", "function"])
_anything = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_keys, inner), max_leaves=6
)  # fmt: skip


@given(
    st.sampled_from(["chat", "completions"]),
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "n", "max_tokens", "tools", "stream", "stream_options"]), _anything
    ),
)
def test_any_body_is_an_ask_or_a_mistake(dialect: Any, body: dict[str, Any]) -> None:
    with contextlib.suppress(AskError):
        assert Answer(read_ask(dialect, body), tokens=0, seed=0, identity="1", created=1).count >= 0


def test_a_token_s_event_is_the_general_one() -> None:
    answer = chat_answer(model='a"@gap@"b', stream_options={"include_usage": True}, n=2)
    assert answer.token(3) == [answer.said(" w3", 0), answer.said(" w3", 1)]
    chunk = json.loads(answer.token(0)[1].removeprefix(b"data: "))
    assert (chunk["model"], chunk["usage"], chunk["choices"][0]["index"]) == ('a"@gap@"b', None, 1)


def test_embeddings_depend_on_the_text_alone() -> None:
    one = embeddings_body("m", {"input": "a b"})
    two = embeddings_body("m", {"input": ["c", "a b"]})
    assert one["data"][0]["embedding"] == two["data"][1]["embedding"] != two["data"][0]["embedding"]
    assert two["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    with pytest.raises(AskError):
        embeddings_body("m", {"input": [1]})

"""Going on with an answer: whatever it was cut into, what goes out is the one text."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.provider import delta, finish, role, usage

from coterie.dispatch.answer_so_far import _MOST_CHARACTERS, AnswerSoFar
from coterie.errors import ApiError
from coterie.wire.lingua import Chunk, Generation

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = Generation("m", {"messages": MESSAGES})


def chat(**parameters: Any) -> Generation:
    return Generation("m", {"messages": MESSAGES, **parameters})


def text_request(*prompts: Any, known: Generation | None = None, **parameters: Any) -> Generation:
    return Generation("m", {"max_tokens": 9, **parameters}, prompts=prompts, known=known)


def text_of(chunks: list[Chunk]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def fed(said: AnswerSoFar, *pieces: str) -> str:
    return text_of([said.feed(delta(piece)) for piece in pieces])


def said(delta: dict[str, Any], finish: str | None = None) -> Chunk:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


CALL = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}


@pytest.mark.parametrize(
    ("generation", "eligible"),
    [
        (CHAT, True),
        (chat(tools=[{}], tool_choice="auto"), True),
        (chat(tools=[{}], tool_choice="none"), True),
        (chat(response_format={"type": "text"}, logprobs=False), True),
        (chat(response_format=None, logprobs=None, tool_choice=None), True),
        (Generation("m", {"messages": MESSAGES}, n=2), False),
        (text_request("Hi"), True),
        (text_request("Hi", echo=False, suffix=None, best_of=None, logprobs=None), True),
        (text_request([1, 2]), False),
        (text_request("Hi", "Ho"), False),
        (text_request("Hi", logprobs=0), False),
        (text_request("Hi", echo=True), False),
        (text_request("Hi", suffix="x"), False),
        (text_request("Hi", best_of=2), False),
        (text_request("Hi", max_tokens=None), False),
        (dataclasses.replace(text_request("Hi"), n=2), False),
        (chat(stop=["x"] * 17), False),
        (chat(stop=[1]), False),
        (chat(stop="x" * 257), False),
        (chat(logprobs=True), False),
        (chat(response_format={"type": "json_object"}), False),
        (chat(response_format={"type": "json_schema", "json_schema": {}}), False),
        (chat(response_format="odd"), False),
        (chat(tool_choice="required"), False),
        (chat(tool_choice={"type": "function", "function": {"name": "f"}}), False),
        (chat(guided_json={}), False),
        (chat(grammar="root ::= x"), False),
        (chat(messages=[*MESSAGES, {"role": "assistant", "content": "The"}]), False),
        (chat(messages=[]), False),
        (Generation("m", {}), False),
    ],
)
def test_which_requests_can_be_continued(generation: Generation, *, eligible: bool) -> None:
    answer = AnswerSoFar(generation)
    fed(answer, "a", "b")
    assert answer.continuable is eligible
    assert bool(answer._text.getvalue()) is eligible


@pytest.mark.parametrize(
    ("chunk", "continuable"),
    [
        (delta("x"), True),
        (role(), True),
        (said({"role": "assistant", "content": "x"}), True),
        (said({"role": "assistant", "content": "", "refusal": None, "tool_calls": []}), True),
        ({"choices": []}, True),
        ({"choices": [], "extra": {"a": 1}}, True),
        (said(CALL), False),
        (said({"content": "x", **CALL}), False),
        (said({"refusal": "No"}), False),
        (said({"reasoning_content": "Hm"}), False),
        (finish(), False),
        (said({"content": "x"}, "length"), False),
    ],
)
def test_what_was_said_decides_too(chunk: Chunk, *, continuable: bool) -> None:
    answer = AnswerSoFar(CHAT)
    fed(answer, "a")
    before = copy.deepcopy(chunk)
    assert answer.feed(chunk) == before
    assert answer.continuable is continuable


def test_no_text_is_kept_that_nobody_can_continue() -> None:
    unfollowed = AnswerSoFar(CHAT, followed=False)
    fed(unfollowed, *"abc")
    assert not unfollowed.continuable
    assert not unfollowed._text.getvalue()
    called = AnswerSoFar(CHAT)
    fed(called, *"abc")
    called.feed(said(CALL))
    fed(called, *"abc")
    assert not called._text.getvalue()


def test_a_text_that_is_too_long_is_let_go() -> None:
    answer = AnswerSoFar(CHAT)
    piece = "x" * 4096
    fed(answer, *[piece] * (_MOST_CHARACTERS // 4096))
    assert answer.continuable
    assert fed(answer, "y", piece) == "y" + piece
    assert not answer.continuable
    assert not answer._text.getvalue()


def test_the_request_for_the_rest() -> None:
    generation = chat(max_tokens=10, seed=1)
    answer = AnswerSoFar(generation)
    fed(answer, "Hel", "lo \n")
    rest = answer.continued()
    assert rest.body == {
        "messages": [*MESSAGES, {"role": "assistant", "content": "Hello"}], "max_tokens": 8, "seed": 1
    }  # fmt: skip
    assert rest.partial
    assert generation.body == {"messages": MESSAGES, "max_tokens": 10, "seed": 1}
    assert len(MESSAGES) == 1


@pytest.mark.parametrize("blank", ["", " ", "\n\n", " \t\u2003"])
def test_white_space_alone_is_not_handed_over(blank: str) -> None:
    answer = AnswerSoFar(chat(max_tokens=9))
    fed(answer, blank)
    rest = answer.continued()
    assert (rest.body["messages"], rest.partial) == (MESSAGES, False)
    assert fed(answer, blank + "Hello") == "Hello"
    assert answer.feed(usage(3, 2))["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("as_refusal", [False, True])
def test_what_others_are_given_goes_on_as_well(as_refusal: bool) -> None:
    known: Generation | ApiError = ApiError("unknown_parameter", param="x") if as_refusal else chat(max_tokens=5)
    answer = AnswerSoFar(Generation("m", {"messages": MESSAGES, "max_tokens": 5, "x": 1}, known=known))
    fed(answer, "a", "b")
    rest = answer.continued()
    if isinstance(known, ApiError):
        assert rest.known is known
    else:
        assert isinstance(rest.known, Generation)
        assert rest.known.body == {"messages": rest.body["messages"], "max_tokens": 3}
        assert rest.known.partial


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_of_tokens(name: str) -> None:
    answer = AnswerSoFar(chat(**{name: 5}))
    for left in (4, 3):
        fed(answer, "a")
        assert answer.continuable
        assert answer.continued().body[name] == left
    fed(answer, *"abc")
    assert answer.tokens == 5
    assert not answer.continuable


SEVERAL = ["two words", "a b ", " a\nb", "x" * 25]
ONE = ["word", " word", "word ", "\n\n", " " * 24, "x" * 24]


@pytest.mark.parametrize(("pieces", "limited", "continuable"), [
    *(([piece], False, True) for piece in SEVERAL), *(([piece], True, False) for piece in SEVERAL),
    *(([piece], True, True) for piece in ONE), (["a", "b c", "d"], True, False),
])  # fmt: skip
def test_pieces_of_several_tokens_cannot_be_counted(pieces: list[str], *, limited: bool, continuable: bool) -> None:
    answer = AnswerSoFar(chat(max_tokens=20) if limited else CHAT)
    fed(answer, *pieces)
    assert answer.continuable is continuable


def counted(content: str, tokens: int) -> Chunk:
    return {**delta(content), "usage": usage(3, tokens)["usage"]}


def test_a_providers_own_count_is_exact() -> None:
    answer = AnswerSoFar(chat(max_tokens=20))
    assert answer.feed(counted("one two three", 3)) == delta("one two three")
    assert answer.feed(counted(" four five six", 6)) == delta(" four five six")
    assert answer.continuable
    assert answer.continued().body["max_tokens"] == 14
    answer.feed(counted(" seven eight", 2))
    fed(answer, " nine")
    assert answer.tokens == 9
    assert answer.continued().body["max_tokens"] == 11
    answer.feed(counted(" and the end", 11))
    assert not answer.continuable
    assert answer.feed(usage(12, 11)) == usage(3, 20)


def test_a_count_that_is_none_counts_for_nothing() -> None:
    answer = AnswerSoFar(chat(max_tokens=20))
    answer.feed(counted("a", 0))
    assert answer.continued().body["max_tokens"] == 19
    answer.feed(counted("b c", 0))
    assert not answer.continuable


def test_usage_so_far_is_that_of_one_answer() -> None:
    answer = AnswerSoFar(CHAT)
    first = {**delta("a"), "usage_so_far": usage(3, 2)["usage"]}
    assert answer.feed(first) == first
    fed(answer, "b")
    answer.continued()
    second = answer.feed({**counted("c", 1), "usage_so_far": usage(5, 1)["usage"]})
    assert second == {**delta("c"), "usage_so_far": usage(3, 3)["usage"]}
    assert answer.feed({"choices": [], "usage_so_far": usage(5, 2)["usage"]})["usage_so_far"] == usage(3, 4)["usage"]


@pytest.mark.parametrize("followed", [False, True])
def test_usage_beside_choices_goes_no_further(followed: bool) -> None:
    assert AnswerSoFar(CHAT, followed=followed).feed(counted("a", 1)) == delta("a")


@pytest.mark.parametrize(
    ("stop", "text", "continuable"),
    [
        ("w9 w10", "w8 w9", False),
        ("w9 w10", "w8 w9 ", False),
        ("w9 w10", "w8 w9\n", False),
        ("w9 w10", "w8", True),
        ("w9 w10", "w8 w", False),
        ("w9 w10", "w9 w8", True),
        (["END", "\n\n"], "a\n", False),
        (["END", "\n\n"], "a", True),
        (["END", "\n\n"], "aE", False),
        ([], "a", True),
        (None, "a", True),
        ("a", "a", True),
    ],
)
def test_a_stop_string_that_may_have_begun(stop: Any, text: str, *, continuable: bool) -> None:
    answer = AnswerSoFar(chat(stop=stop))
    fed(answer, *text)
    assert answer.continuable is continuable


def test_the_rest_of_a_text_completion() -> None:
    generation = text_request("Once ", known=text_request("Once "))
    answer = AnswerSoFar(generation)
    fed(answer, "upon", " a ")
    rest = answer.continued()
    assert (rest.prompts, rest.partial, rest.body) == (("Once upon a ",), False, {"max_tokens": 7})
    assert isinstance(rest.known, Generation)
    assert rest.known.prompts == rest.prompts
    assert fed(answer, " time") == " time"
    assert answer.continued().prompts == ("Once upon a  time",)
    assert answer.feed(usage(9, 1)) == usage(6, 4)
    assert generation.prompts == ("Once ",)


@pytest.mark.parametrize(
    ("before", "after", "out"),
    [
        (["Hello "], [" wor", "ld"], "world"),
        (["Hello "], ["world"], "world"),
        (["Hello"], [" world"], " world"),
        (["Hello \n"], [" ", "\n", "x"], "x"),
        (["Hello \n"], [" \nx"], "x"),
        (["Hello \n\n"], [" \n", "x"], "x"),
        (["Hello "], ["  x"], " x"),
        (["Hello "], ["\nx"], "\nx"),
        (["Hello "], ["x", " y"], "x y"),
        (["Hello", " ", "\n"], ["", " ", "\n "], " "),
    ],
)
def test_the_seam(before: list[str], after: list[str], out: str) -> None:
    answer = AnswerSoFar(CHAT)
    fed(answer, *before)
    answer.continued()
    assert fed(answer, *after) == out


def test_a_chunk_is_not_changed_where_it_lies() -> None:
    answer = AnswerSoFar(CHAT)
    fed(answer, "a ")
    answer.continued()
    chunk = delta(" b")
    assert answer.feed(chunk) == delta("b")
    assert chunk == delta(" b")


def test_usage_is_that_of_one_answer() -> None:
    answer = AnswerSoFar(CHAT)
    fed(answer, "a", "b")
    answer.continued()
    fed(answer, "c")
    answer.continued()
    fed(answer, "d")
    last = answer.feed({"choices": [], "usage": {**usage(13, 1)["usage"], "prompt_tokens_details": {"cached": 12}}})
    assert last == usage(10, 4)


@pytest.mark.parametrize("chunk", [usage(), {"choices": [], "usage": None}])
def test_usage_of_an_unbroken_answer_is_left_alone(chunk: Chunk) -> None:
    assert AnswerSoFar(CHAT).feed(chunk) is chunk


def test_a_provider_that_does_not_count() -> None:
    answer = AnswerSoFar(CHAT)
    fed(answer, "a")
    answer.continued()
    assert answer.feed({"choices": [], "usage": None})["usage"] is None


TEXT = st.text(st.sampled_from("ab \n\t\u00a0\U0001f600"), max_size=12)


@st.composite
def cuts(draw: st.DrawFn) -> tuple[str, list[int]]:
    text = draw(TEXT)
    return text, sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))


@given(cuts(), st.data())
def test_any_cuts_and_any_pieces_give_the_whole_text(plan: tuple[str, list[int]], data: st.DataObject) -> None:
    """Each server goes on from the text that it is given, in pieces of any size, until it is cut off."""
    text, ends = plan
    answer, generation, out = AnswerSoFar(chat(seed=1)), chat(), ""
    for part, end in enumerate([*ends, len(text)]):
        if part:
            assert answer.continuable
            generation = answer.continued()
        given_ = generation.body["messages"][1:]
        begun = given_[0]["content"] if given_ else ""
        assert text.startswith(begun)
        assert begun == begun.rstrip()
        rest = text[len(begun) : end]
        while rest:
            size = data.draw(st.integers(1, len(rest)))
            out += fed(answer, rest[:size])
            rest = rest[size:]
        assert out == text[:end]
    prompt = answer._handed_over
    whole = answer.feed(usage(7 + prompt, 5))["usage"]
    assert (whole["prompt_tokens"], whole["total_tokens"]) == (7, 7 + whole["completion_tokens"])


# Text past the chunks

_words = st.sampled_from(["a", " b", "c d", "\n", "x" * 30, "st"])


@given(
    pieces=st.lists(st.tuples(_words, st.booleans()), max_size=8), followed=st.booleans(),
    body=st.sampled_from([{}, {"max_tokens": 3}, {"stop": "sto"}, {"logprobs": True}]), calls=st.booleans(),
)  # fmt: skip
def test_text_past_the_chunks_counts_like_that_of_chunks(
    pieces: list[tuple[str, bool]], body: dict[str, Any], *, followed: bool, calls: bool
) -> None:
    short, usual = (AnswerSoFar(chat(**body), followed=followed) for _ in range(2))
    for answer in (short, usual):
        fed(answer, "first")
        if calls:
            answer.feed(said(CALL))
    for piece, is_short in pieces:
        if is_short:
            short.add(piece)
        else:
            fed(short, piece)
        fed(usual, piece)
    assert (short.tokens, short.continuable) == (usual.tokens, usual.continuable)
    assert short._text.getvalue() == usual._text.getvalue()
    if short.continuable:
        one, other = short.continued(), usual.continued()
        assert (one.body, one.partial, short.seam) == (other.body, other.partial, usual.seam)
        assert short.feed(usage(9, 1)) == usual.feed(usage(9, 1))


def test_the_seam_is_where_the_white_space_comes_again() -> None:
    answer = AnswerSoFar(CHAT)
    fed(answer, "Hel  ")
    assert not answer.seam
    answer.continued()
    assert answer.seam
    answer.feed(role())
    assert answer.seam
    assert fed(answer, " ") == ""
    assert answer.seam
    assert fed(answer, " lo ") == "lo "
    assert not answer.seam
    answer.continued()
    assert fed(answer, "x") == "x"
    assert not answer.seam
    answer.continued()
    assert not answer.seam  # no white space, no seam

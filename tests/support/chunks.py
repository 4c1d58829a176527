"""Chunks of the lingua franca for tests: written shortly, and drawn at random, good and broken."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from coterie.wire.lingua import Chunk

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def chunk(delta: Any = None, finish: Any = None, index: Any = 0, **fields: Any) -> Chunk:
    """A chunk with one choice."""
    return {"choices": [{"index": index, "delta": {} if delta is None else delta, "finish_reason": finish, **fields}]}


def text(content: str, index: int = 0) -> Chunk:
    """A chunk that says something."""
    return chunk({"content": content}, index=index)


def fragment(index: Any = 0, identity: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    """A delta with a fragment of one tool call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    head = {} if identity is None else {"id": identity, "type": "function"}
    return {"tool_calls": [{"index": index, **head, "function": function}]}


def usage(**fields: Any) -> Chunk:
    """The last chunk."""
    return {"choices": [], "usage": {**USAGE, **fields}}


def logprob(token: str, value: float = -0.5, **fields: Any) -> dict[str, Any]:
    """One entry of ``logprobs.content``."""
    return {"token": token, "logprob": value, "bytes": None, "top_logprobs": [], **fields}


_words = st.sampled_from(["", "a", "b c", "ü\n", "\U0001f600", '"}\r\n\ndata: x'])
_junk: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, 1, -1, True, 1.5, "", "x", [], ["x"], {}, {"x": 1}, [None], [{}], "\ud800"]
)
_finishes = st.sampled_from([None, None, None, "stop", "length", "tool_calls", "content_filter"])
_logprobs = st.sampled_from([None, None, {"content": [], "refusal": None}, {"content": [logprob("t")]}])

_deltas = st.one_of(
    st.just({}),
    st.just({"role": "assistant", "content": ""}),
    st.fixed_dictionaries({"content": _words}, optional={"role": st.just("assistant"), "reasoning_content": _words}),
    st.fixed_dictionaries({"refusal": _words | st.none()}, optional={"content": st.none()}),
    st.builds(fragment, st.integers(0, 2), st.just("call"), st.just("look"), _words),
    st.builds(fragment, st.integers(0, 2), arguments=_words),
    st.builds(lambda one, two: {"tool_calls": one["tool_calls"] + two["tool_calls"]},
              st.builds(fragment, st.just(0), st.just("c0"), st.just("f"), _words),
              st.builds(fragment, st.just(1), st.just("c1"), st.just("g"), _words)),
)  # fmt: skip
_good_choices = st.fixed_dictionaries(
    {"index": st.integers(0, 1), "delta": _deltas, "finish_reason": _finishes}, optional={"logprobs": _logprobs}
)
_broken_choices = st.fixed_dictionaries(
    {},
    optional={
        "index": _junk | st.integers(0, 1),
        "delta": _junk
        | st.dictionaries(
            st.sampled_from(["role", "content", "refusal", "tool_calls", "function_call", "x"]), _junk, max_size=3
        )
        | st.builds(fragment, _junk, _junk, _junk, _junk),
        "finish_reason": _junk | _finishes | st.just("function_call"),
        "logprobs": _junk | st.fixed_dictionaries({"content": _junk | st.just([{"token": "t"}])}),
    },
)
_usages = st.just(USAGE) | _junk | st.just({**USAGE, "total_tokens": 8})

good_chunks = st.one_of(
    st.builds(lambda choice: {"choices": [choice]}, _good_choices),
    st.builds(lambda choices: {"choices": choices}, st.lists(_good_choices, max_size=3)),
    st.just({"choices": [], "usage": USAGE}),
)
"""Chunks of which each may stand somewhere."""

any_chunks = st.one_of(
    good_chunks,
    good_chunks,
    st.builds(lambda choice: {"choices": [choice]}, _broken_choices),
    st.fixed_dictionaries({}, optional={"choices": _junk, "usage": _usages, "error": _junk}),
)
"""Good chunks and broken ones."""


@st.composite
def whole_answers(draw: st.DrawFn, choices: int) -> list[Chunk]:
    """The chunks of a good answer with ``choices`` choices, mixed."""
    queues = [draw(_whole_choice(index)) for index in range(choices)]
    chunks = []
    while waiting := [queue for queue in queues if queue]:
        chunks.append(draw(st.sampled_from(waiting)).pop(0))
    return [*chunks, usage()]


@st.composite
def _whole_choice(draw: st.DrawFn, index: int) -> list[Chunk]:
    chunks = [text(word, index) for word in draw(st.lists(_words, max_size=4))]
    calls = draw(st.integers(0, 2))
    for call in range(calls):
        chunks.append(chunk(fragment(call, f"call_{call}", "look", draw(_words)), index=index))
        for number, word in draw(st.lists(st.tuples(st.integers(0, call), _words), max_size=3)):
            chunks.append(chunk(fragment(number, arguments=word), index=index))
    finish = draw(st.sampled_from(["stop", "length", "content_filter", *(["tool_calls"] if calls else [])]))
    return [*chunks, chunk(draw(st.sampled_from([{}, {"content": "end"}])), finish, index)]

"""A turn's request, asked, and asked again with less."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from tests.support.provider import WHOLE, delta, role
from tests.support.responding import plan
from tests.support.stored import message

from coterie.errors import ApiError
from coterie.turns.asking import Asking
from coterie.turns.turn import Item, Plan
from coterie.wire.lingua import RESTART, Chunk


def too_long(**fields: Any) -> ApiError:
    return ApiError("context_length_exceeded", param="messages", said="" if fields else "It is too long.", **fields)


class Model:
    """Answers requests of at most ``most`` messages; says ``first`` before it refuses another."""

    def __init__(self, most: int, first: Sequence[Chunk] = (), *, measured: bool = False) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.closed = 0
        self._most = most
        self._first = first
        self._measured = measured

    def __call__(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        self.bodies.append(body)
        return self._answer(body)

    async def _answer(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        try:
            for chunk in self._first:
                yield chunk
            count = len(body["messages"])
            if count > self._most:
                raise too_long(limit=100 * self._most, actual=100 * count) if self._measured else too_long()
            for chunk in WHOLE:
                yield chunk
        finally:
            self.closed += 1

    @property
    def texts(self) -> list[str]:
        """The texts of the last request."""
        return [each["content"] for each in self.bodies[-1]["messages"]]


def talk(exchanges: int) -> tuple[Item, ...]:
    """A conversation: as many questions, each with its answer."""
    items = []
    for i in range(exchanges):
        items += [message(f"msg_q{i}", f"question {i}"), message(f"msg_a{i}", f"answer {i}", "assistant")]
    return tuple(items)


def asked(context: Sequence[Item] = (), *, told: bool = True, found: Any = None, **fields: Any) -> Plan:
    return dataclasses.replace(plan(told=told, **fields), context=tuple(context), found=found or {})


async def answer(asked: Plan, model: Model) -> list[Chunk]:
    return [chunk async for chunk in Asking(asked, lambda sealed: None, model).chunks()]


async def refusal(asked: Plan, model: Model) -> ApiError:
    asking = Asking(asked, lambda sealed: None, model)
    with pytest.raises(ApiError) as caught:
        async for _ in asking.chunks():
            pass
    return asking.relate(caught.value)


async def test_a_conversation_that_fits_is_asked_once() -> None:
    model = Model(99)
    assert await answer(asked(talk(3), truncation="auto"), model) == list(WHOLE)
    assert len(model.bodies) == 1
    assert len(model.texts) == 7


async def test_without_truncation_what_does_not_fit_is_refused() -> None:
    model = Model(3)
    error = await refusal(asked(talk(3)), model)
    assert error.code == "context_length_exceeded"
    assert len(model.bodies) == 1


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("most", range(1, 12))
async def test_a_conversation_is_shortened_until_it_fits(most: int, measured: bool) -> None:
    model = Model(most, measured=measured)
    assert await answer(asked(talk(20), truncation="auto"), model) == list(WHOLE)
    assert len(model.texts) <= most
    assert model.texts[-1] == "Hi"
    assert model.closed == len(model.bodies)


async def test_where_the_failure_tells_how_much_is_too_long_few_tries_are_needed() -> None:
    model = Model(11, measured=True)
    await answer(asked(talk(50), truncation="auto"), model)
    assert len(model.bodies) <= 3
    assert len(model.texts) >= 7


async def test_what_stays_is_the_newest() -> None:
    model = Model(5)
    await answer(asked(talk(10), truncation="auto"), model)
    assert model.texts[-3:] == ["question 9", "answer 9", "Hi"]


async def test_where_nothing_is_left_to_leave_out_the_refusal_is_told() -> None:
    error = await refusal(asked(talk(5), truncation="auto"), Model(0))
    assert error.code == "context_length_exceeded"
    assert error.status == 400


async def test_one_that_never_fits_is_refused_in_the_end() -> None:
    """A provider that names numbers that are never true."""

    class Liar(Model):
        async def _answer(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
            raise too_long(limit=10_000, actual=10_001)
            yield {}

    model = Liar(0)
    error = await refusal(asked(talk(200), truncation="auto"), model)
    assert error.code == "context_length_exceeded"
    assert len(model.bodies) < 50


async def test_another_failure_is_told_at_once() -> None:
    class Broken(Model):
        async def _answer(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
            raise ApiError("engine_failed")
            yield {}

    model = Broken(0)
    assert (await refusal(asked(talk(5), truncation="auto"), model)).code == "engine_failed"
    assert len(model.bodies) == 1


async def test_once_something_was_said_nothing_is_asked_again() -> None:
    model = Model(3, (delta("Hel"),))
    assert (await refusal(asked(talk(5), truncation="auto"), model)).code == "context_length_exceeded"
    assert len(model.bodies) == 1


async def test_a_role_says_nothing_yet() -> None:
    model = Model(3, (role(), delta("")))
    chunks = await answer(asked(talk(5), truncation="auto"), model)
    assert chunks[-len(WHOLE) :] == list(WHOLE)
    assert RESTART not in chunks


async def test_what_is_told_when_it_is_whole_begins_anew() -> None:
    model = Model(3, (delta("void"),))
    chunks = await answer(asked(talk(5), told=False, truncation="auto"), model)
    begin = len(chunks) - chunks[::-1].index(RESTART)
    assert chunks[begin:] == [delta("void"), *WHOLE]


def call(number: int) -> Item:
    return {
        "type": "function_call", "id": f"fc_{number}", "status": "completed", "call_id": f"call_{number}", "name": "f",
        "arguments": "{}",
    }  # fmt: skip


async def test_what_is_referred_to_is_left_out_with_what_belongs_to_it() -> None:
    """A call that is only referred to, and its output: never the one without the other."""
    items: list[Any] = []
    for i in range(10):
        output = {"type": "function_call_output", "call_id": f"call_{i}", "output": "x" * 50}
        items += [
            {"role": "user", "content": f"question {i}"},
            {"type": "item_reference", "id": f"fc_{i}"},
            output,
            {"role": "assistant", "content": f"answer {i}"},
        ]
    items.append({"role": "user", "content": "Hi"})
    found = {f"fc_{i}": call(i) for i in range(10)}
    for most in range(1, 40):
        model = Model(most)
        await answer(asked(input=items, found=found, truncation="auto"), model)
        calls = [each["id"] for body in model.bodies[-1:] for m in body["messages"] for each in m.get("tool_calls", ())]
        outputs = [m["tool_call_id"] for m in model.bodies[-1]["messages"] if m["role"] == "tool"]
        assert calls == outputs
        assert model.texts[-1] == "Hi"


async def test_a_failure_names_the_place_in_the_request_also_after_it_was_shortened() -> None:
    class Picky(Model):
        async def _answer(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
            count = len(body["messages"])
            if count > 3:
                raise too_long()
            raise ApiError("invalid_value", param=f"messages[{count - 1}].content", reason="no")
            yield {}

    items = [{"role": each["role"], "content": each["content"][0]["text"]} for each in talk(5)]
    items.append({"role": "user", "content": [{"type": "input_text", "text": "Hi"}]})
    error = await refusal(asked(input=items, truncation="auto"), Picky(0))
    assert error.param == "input[10].content"


@pytest.mark.parametrize("truncation", ["auto", "disabled"])
async def test_who_stops_listening_closes_the_answer(truncation: str) -> None:
    model = Model(99)
    chunks = Asking(asked(truncation=truncation), lambda sealed: None, model).chunks()
    assert await anext(chunks) == WHOLE[0]
    await chunks.aclose()
    assert model.closed == 1


@pytest.mark.parametrize("method", ["chunks", "check"])
def test_what_is_wrong_with_the_request_is_told_in_its_words(method: str) -> None:
    def refuse(body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        raise ApiError("integer_below_min_value", param="max_completion_tokens", limit=1, actual=0)

    asking = Asking(asked(), lambda sealed: None, refuse)
    with pytest.raises(ApiError) as caught:
        getattr(asking, method)()
    assert caught.value.param == "max_output_tokens"


def test_a_plan_that_cannot_be_asked_is_refused_at_once() -> None:
    output = {"type": "function_call_output", "call_id": "call_0", "output": "x"}
    with pytest.raises(ApiError) as caught:
        Asking(asked(input=[output]), lambda sealed: None, Model(9))
    assert caught.value.code == "invalid_value"


# An answer that the server bounds


class Small:
    """A model whose context is ``limit`` tokens, for a request and its answer; a message is 100 tokens."""

    def __init__(self, limit: int, *, tells: bool = True, counts_answer: bool = True) -> None:
        self.asked: list[tuple[int, int]] = []
        """Messages and bound of the answer of each request."""
        self._limit, self._tells, self._counts_answer = limit, tells, counts_answer

    async def __call__(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        count, bound = len(body["messages"]), body["max_completion_tokens"]
        self.asked.append((count, bound))
        needed = 100 * count + bound
        if needed > self._limit:
            if self._tells:
                raise too_long(limit=self._limit, actual=needed if self._counts_answer else 100 * count)
            raise too_long()
        for chunk in WHOLE:
            yield chunk


async def bounded(model: Small, exchanges: int, most_tokens: int) -> None:
    asking = Asking(asked(talk(exchanges), truncation="auto"), lambda sealed: None, model, most_tokens=most_tokens)
    assert [chunk async for chunk in asking.chunks()] == list(WHOLE)


@pytest.mark.parametrize("counts_answer", [True, False])
async def test_a_bounded_answer_takes_a_quarter_of_the_context_before_anything_is_left_out(counts_answer: bool) -> None:
    model = Small(2000, counts_answer=counts_answer)
    await bounded(model, 7, 1024)
    assert model.asked == [(15, 1024), (15, 500)]


async def test_where_that_is_not_enough_the_conversation_is_shortened() -> None:
    model = Small(2000)
    await bounded(model, 50, 1024)
    count, bound = model.asked[-1]
    assert bound == 500
    assert 8 <= count <= 15
    assert len(model.asked) <= 4


async def test_an_answer_that_is_bounded_by_less_stays_so() -> None:
    model = Small(2000)
    await bounded(model, 50, 1)
    assert {bound for _, bound in model.asked} == {1}


async def test_where_the_context_is_not_told_the_bound_stays() -> None:
    model = Small(2000, tells=False)
    await bounded(model, 50, 1024)
    assert {bound for _, bound in model.asked} == {1024}


async def test_without_truncation_an_answer_is_bounded_as_well() -> None:
    model = Small(2000)
    asking = Asking(asked(), lambda sealed: None, model, most_tokens=7)
    assert [chunk async for chunk in asking.chunks()] == list(WHOLE)
    assert model.asked == [(1, 7)]

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.support.upstream import CHAT, chat, connected, exchange, has_ended
from tests.support.web import post

from coterie.dialects.chat_validator import judge
from coterie.testbed.answers import answer_text
from coterie.testbed.upstream import FaultyUpstream


async def test_a_thousand_paced_answers() -> None:
    async with FaultyUpstream(rate=1000, tokens=3) as upstream:

        async def one() -> None:
            async with connected(upstream) as wire:
                answer = await wire.ask(post(CHAT, chat("ok", stream=True)))
                assert judge(answer.body, include_usage=False) == []

        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(100)))
        assert {(entry.tokens_sent, entry.ended) for entry in upstream.log} == {(3, "done")}
        assert len(upstream.log) == 1000


async def test_a_stop_drops_what_is_open() -> None:
    async with FaultyUpstream() as upstream:
        async with connected(upstream) as wire:
            await wire.send(post(CHAT, chat("silent")))
            await upstream.saw(lambda entry: True)
            await upstream.stop()
            assert await wire.at_end()
        assert upstream.connections == 0


async def test_waiting_has_an_end() -> None:
    async with FaultyUpstream() as upstream:
        with pytest.raises(TimeoutError):
            await upstream.saw(lambda entry: True, timeout_s=0.01)


def test_the_official_client() -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two"}]
    with FaultyUpstream(tokens=4) as upstream, openai.OpenAI(base_url=upstream.base_url, api_key="sk-mine") as client:
        plain = client.chat.completions.create(model="ok", messages=messages)
        assert plain.choices[0].message.content == answer_text(4)
        with client.chat.completions.create(
            model="ok", messages=messages, stream=True, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == answer_text(4)
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 4
        assert client.completions.create(model="ok", prompt="x").choices[0].text == answer_text(4)
        assert len(client.embeddings.create(model="ok", input="x", encoding_format="float").data[0].embedding) == 8
        assert "ok" in [model.id for model in client.models.list()]
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=messages)
        assert caught.value.code == "model_not_found"
        assert "sk-mine" not in str(upstream.log)
        client.chat.completions.create(model="error-once", messages=messages)
        assert [entry.status for entry in upstream.log[-2:]] == [500, 200]


def test_the_file_of_the_log(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with FaultyUpstream(log_file=file) as upstream:
        exchange(upstream, post(CHAT, chat("cut@2", stream=True)))
        exchange(upstream, post(CHAT, chat("ok"), connection="close"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["fault"], line["ended"]) for line in lines] == [("cut", "fault"), ("ok", "done")]


def test_a_port_that_is_taken() -> None:
    with FaultyUpstream() as upstream, pytest.raises(OSError, match="in use"):
        FaultyUpstream(port=upstream.port)


async def test_seen_from_another_loop() -> None:
    with FaultyUpstream() as upstream:
        await asyncio.to_thread(exchange, upstream, post(CHAT, chat("ok"), connection="close"))
        (entry,) = await upstream.saw(has_ended)
        assert entry.ended == "done"

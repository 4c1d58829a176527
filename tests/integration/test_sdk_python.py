"""What works, through the official Python SDK; every raw chat stream is judged by the validator."""

from __future__ import annotations

import asyncio
import base64
import math
import struct

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from tests.support.counting_proxy import CountingProxy
from tests.support.failures import CHAT
from tests.support.judged import judged_stream
from tests.support.models import END_OF_TURN, chat, long_chat
from tests.support.server import Server

from coterie.config import DEFAULT_MODEL
from coterie.dialects.chat_validator import judge

# Chat


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat())
    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == DEFAULT_MODEL
    assert choice.message.role == "assistant"
    assert choice.message.content == "The capital of Cuba is Havana."
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream_says_what_the_plain_answer_says(server: Server, client: OpenAI) -> None:
    plain = client.chat.completions.create(**chat())
    with client.chat.completions.create(**chat(), stream=True) as stream:
        chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == plain.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in chunks)
    assert b'"usage"' not in judged_stream(server)


def test_stream_with_usage(server: Server, client: OpenAI) -> None:
    plain = client.chat.completions.create(**chat())
    with client.chat.completions.create(**chat(), stream=True, stream_options={"include_usage": True}) as stream:
        *chunks, last = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert plain.usage is not None
    assert last.usage.total_tokens == plain.usage.total_tokens
    judged_stream(server, include_usage=True)


def test_two_choices(server: Server, client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat(n=2))
    one = client.chat.completions.create(**chat())
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert {choice.message.content for choice in answer.choices} == {one.choices[0].message.content}
    assert answer.usage is not None
    assert one.usage is not None
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens, "the prompt is counted once"
    assert answer.usage.completion_tokens == 2 * one.usage.completion_tokens
    with client.chat.completions.create(**chat(n=2), stream=True) as stream:
        texts = ["", ""]
        for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [one.choices[0].message.content] * 2
    judged_stream(server, include_usage=True, n=2)


def test_logprobs(server: Server, client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat(logprobs=True, top_logprobs=3))
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content
    assert tokens
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "at temperature 0 the likeliest token is chosen"
        assert token.bytes is not None
        assert bytes(token.bytes).decode() == token.token
    assert b'"top_logprobs":[{' in judged_stream(server, logprobs=True, top_logprobs=1)


def test_logprobs_without_alternatives(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat(logprobs=True))
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.content
    assert {len(token.top_logprobs) for token in answer.choices[0].logprobs.content} == {0}
    assert client.chat.completions.create(**chat()).choices[0].logprobs is None


def test_stop(server: Server, client: OpenAI) -> None:
    whole = client.chat.completions.create(**chat(max_tokens=16)).choices[0].message.content
    assert whole is not None
    stop = whole.split()[2]
    answer = client.chat.completions.create(**chat(max_tokens=16, stop=[stop]))
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert client.chat.completions.create(**chat(max_tokens=16, stop=stop)).choices[0].finish_reason == "stop"
    judged_stream(server, max_tokens=16, stop=[stop])


def test_a_seed_makes_the_same_text_again(client: OpenAI) -> None:
    def say(seed: int) -> str | None:
        answer: ChatCompletion = client.chat.completions.create(**chat(temperature=1.5, seed=seed, max_tokens=6))
        return answer.choices[0].message.content

    assert say(7) == say(7)
    assert len({say(seed) for seed in range(4)}) > 1


def test_logit_bias(client: OpenAI) -> None:
    answer = client.chat.completions.create(**chat(logit_bias={END_OF_TURN: 100}))
    assert answer.choices[0].message.content == ""
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_length(client: OpenAI, name: str) -> None:
    limit = chat(**{"max_tokens": None, name: 3})
    answer = client.chat.completions.create(**limit)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_roles_and_parts(client: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello."}],
            "name": "Ann",
        },
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Again! \U0001f600 é"},
    ]
    assert client.chat.completions.create(**chat(messages=messages)).choices[0].message.content


def test_parameters_without_effect(client: OpenAI) -> None:
    harmless = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "top_p": 1, "n": 1}
    plain = client.chat.completions.create(**chat())
    assert client.chat.completions.create(**chat(**harmless)).choices[0].message == plain.choices[0].message


# Text completions


def test_completion(client: OpenAI) -> None:
    answer = client.completions.create(
        model=DEFAULT_MODEL, prompt="The capital of France is", max_tokens=5, temperature=0
    )
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    with client.completions.create(
        model=DEFAULT_MODEL, prompt="The capital of France is", max_tokens=5, temperature=0, stream=True
    ) as stream:
        assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_completions_of_several_prompts(client: OpenAI) -> None:
    prompts = ["The capital of France is", "The capital of Japan is"]
    each = [
        client.completions.create(model=DEFAULT_MODEL, prompt=prompt, max_tokens=1, temperature=0) for prompt in prompts
    ]
    both = client.completions.create(model=DEFAULT_MODEL, prompt=prompts, max_tokens=1, temperature=0)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert [choice.text for choice in both.choices] == [answer.choices[0].text for answer in each]
    assert both.usage is not None
    assert both.usage.total_tokens == sum(answer.usage.total_tokens for answer in each if answer.usage)


def test_completion_of_token_ids(client: OpenAI) -> None:
    tokens = [504, 6330, 314]
    one = client.completions.create(model=DEFAULT_MODEL, prompt=tokens, max_tokens=4, temperature=0)
    two = client.completions.create(model=DEFAULT_MODEL, prompt=[tokens, tokens], max_tokens=4, temperature=0)
    assert one.choices[0].text
    assert one.usage is not None
    assert one.usage.prompt_tokens == 3
    assert all(choice.text for choice in two.choices)
    assert two.usage is not None
    assert two.usage.prompt_tokens == 6


def test_completion_logprobs(client: OpenAI) -> None:
    answer = client.completions.create(
        model=DEFAULT_MODEL, prompt="The capital of France is", max_tokens=4, temperature=0, logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.top_logprobs is not None
    assert [len(top) for top in logprobs.top_logprobs] == [2] * len(logprobs.tokens)
    assert logprobs.token_logprobs is not None
    assert max(logprobs.token_logprobs) <= 0
    assert logprobs.text_offset is not None
    assert logprobs.text_offset[0] == 0
    assert sorted(logprobs.text_offset) == logprobs.text_offset


# Embeddings


def test_embeddings(server: Server, client: OpenAI) -> None:
    """The SDK asks for base64 by itself and gives floats; asked for floats, the server sends the same numbers."""
    texts = ["The cat sat on the mat.", "A cat is sitting on a mat.", "Interest rates rose in the third quarter."]
    default = client.embeddings.create(model=DEFAULT_MODEL, input=texts)
    floats = client.embeddings.create(model=DEFAULT_MODEL, input=texts, encoding_format="float")
    vectors = [row.embedding for row in default.data]
    assert [row.index for row in default.data] == [0, 1, 2]
    assert len({len(vector) for vector in vectors}) == 1
    for vector, row in zip(vectors, floats.data, strict=True):
        assert vector == pytest.approx(row.embedding, rel=1e-5)
    assert _cosine(vectors[0], vectors[1]) > _cosine(vectors[0], vectors[2])
    assert default.usage.prompt_tokens == default.usage.total_tokens > 0


def test_embeddings_in_base64_on_the_wire(server: Server) -> None:
    answer = server.ask("POST", "/v1/embeddings", {"model": DEFAULT_MODEL, "input": "Hi", "encoding_format": "base64"})
    data = base64.b64decode(answer.json["data"][0]["embedding"], validate=True)
    assert all(math.isfinite(number) for (number,) in struct.iter_unpack("<f", data))


def test_embeddings_of_one_text_alone_and_among_others(client: OpenAI) -> None:
    alone = client.embeddings.create(model=DEFAULT_MODEL, input="cat").data[0].embedding
    among = client.embeddings.create(model=DEFAULT_MODEL, input=["a dog", "cat", "x"] * 7).data[1].embedding
    assert _cosine(alone, among) == pytest.approx(1, abs=1e-3)


def test_embeddings_of_token_ids(client: OpenAI) -> None:
    one = client.embeddings.create(model=DEFAULT_MODEL, input=[504, 6330])
    two = client.embeddings.create(model=DEFAULT_MODEL, input=[[504, 6330], [314]])
    assert one.usage.prompt_tokens == 2
    assert two.usage.prompt_tokens == 3
    assert _cosine(one.data[0].embedding, two.data[0].embedding) == pytest.approx(1, abs=1e-3)


def _cosine(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True)) / math.hypot(*left) / math.hypot(*right)


# Models, raw answers, the asynchronous client


def test_models(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert DEFAULT_MODEL in models
    assert client.models.retrieve(DEFAULT_MODEL) == models[DEFAULT_MODEL]
    assert models[DEFAULT_MODEL].object == "model"


def test_raw_answers_and_request_ids(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**chat())
    answer = raw.parse()
    assert raw.http_response.status_code == 200
    assert raw.headers["x-request-id"].startswith("req_")
    assert isinstance(answer, ChatCompletion)
    assert answer._request_id == raw.headers["x-request-id"]
    assert client.chat.completions.create(**chat())._request_id != answer._request_id


def test_streaming_response(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(**chat(), stream=True) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"].startswith("req_")
        body = b"".join(response.iter_bytes())
    assert judge(body, include_usage=False, choices=1) == []


async def test_asynchronous(server: Server) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="unused") as client:
        plain = await client.chat.completions.create(**chat())
        async with await client.chat.completions.create(**chat(), stream=True) as stream:
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(texts) == plain.choices[0].message.content
        assert DEFAULT_MODEL in [model.id async for model in client.models.list()]
        vectors = await client.embeddings.create(model=DEFAULT_MODEL, input="Hi")
        assert vectors.data[0].embedding


async def test_many_at_once(server: Server) -> None:
    """More than there are slots; each gets its own answer."""
    capitals = {"Germany": "Berlin", "Japan": "Tokyo", "Russia": "Moscow", "Greece": "Athens", "Poland": "Warsaw"}
    async with AsyncOpenAI(base_url=server.base_url, api_key="unused") as client:

        async def ask(country: str) -> str | None:
            messages = [{"role": "user", "content": f"What is the capital of {country}?"}]
            answer: ChatCompletion = await client.chat.completions.create(**chat(messages=messages))
            return answer.choices[0].message.content

        answers = await asyncio.gather(*(ask(country) for country in capitals))
    assert answers == [f"The capital of {country} is {capital}." for country, capital in capitals.items()]


def test_a_good_request_is_sent_once(client: OpenAI, proxy: CountingProxy) -> None:
    client.chat.completions.create(**chat())
    assert proxy.requests == [f"POST {CHAT}"]


def test_a_client_s_own_deadline(server: Server) -> None:
    """The SDK's timeout is the SDK's failure; the server frees the slot."""
    with (
        OpenAI(base_url=server.base_url, api_key="unused", max_retries=0, timeout=0.3) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(**long_chat("fragile"))
    server.wait_for("fragile", lambda engine: engine["running"] == 0)

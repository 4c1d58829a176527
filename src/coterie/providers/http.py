"""The HTTP provider: any server that speaks OpenAI's API. What it promises:

* Whatever the server does, the iterator ends: with a whole answer, or with one ``ApiError`` that says what happened.
* Connections are kept and used again (:mod:`coterie.wire.pool`); closing the iterator cuts the connection, which is how
  such servers are told to stop generating.
* Only what says something is a token to a deadline: neither a role, nor a comment, nor a field that nobody knows. What
  becomes of a connection after every finish reason came, also at a deadline, takes nothing from the answer.
* Nothing is read without bound, an event stream neither. What is compressed, which nobody asked for, is no answer.
* Its models are configured, or discovered from its list; a list that cannot be read leaves the last one in force, and
  one that was never read is asked for again within seconds. A context that the list tells is taken from the newest.
* A server that is silent when it is started keeps nobody waiting for longer than :data:`_START_S`.
* There is no task for a request and no timer for a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Final

import orjson

from coterie.config import ConfigError, ProviderSettings
from coterie.errors import ApiError
from coterie.errors.upstream import from_payload, from_transport
from coterie.providers.base import ModelCard, Offer
from coterie.providers.foreign_stream import ForeignStream
from coterie.providers.http_call import HttpCall
from coterie.providers.http_request import MODELS_PATH, embedding_request, generation_request, request_headers
from coterie.providers.listing import ListedModel, pauses_s, read_listing
from coterie.providers.refusal import check_coding, refusal_of
from coterie.providers.short_text import ShortText
from coterie.wire.http1 import ExchangeError, Head
from coterie.wire.lingua import Attempt, Chunk, Embedded, Embedding, Generation, Shortcut
from coterie.wire.pool import Origin, Pool
from coterie.wire.request import RequestForm, request_head
from coterie.wire.sse import SseError, SseParser

_log = logging.getLogger(__name__)

_EVENT_BYTES: Final = 4 * 1024 * 1024
_ANSWER_BYTES: Final = 64 * 1024 * 1024
_LIST_BYTES: Final = 16 * 1024 * 1024
_START_S: Final = 2.0
"""How long the start waits for the list of models."""

_NO_STREAMS: Final = frozenset({"text/html", "application/xhtml+xml", "application/xml", "text/xml"})


class HttpProvider:
    """One server. ``key`` authorizes requests to it."""

    def __init__(self, settings: ProviderSettings, key: str | None = None) -> None:
        self.name = settings.name
        self.settings = settings
        self.key = key
        origin, self._prefix = Origin.parse(settings.base_url)
        tls = None if settings.ca_file is None else ssl.create_default_context()
        if tls is not None:
            tls.load_verify_locations(settings.ca_file)
            tls.set_alpn_protocols(["http/1.1"])
        self._pool = Pool(origin, connect_timeout_s=settings.connect_timeout_s, ssl_context=tls)
        self._headers = request_headers(key, settings.headers)
        self._forms: dict[tuple[str, str], RequestForm] = {}  # by method and path, of which there are few
        created = int(time.time())
        self._configured: dict[str, ListedModel] = {
            model.name: ListedModel(model.name, model.upstream_name, model.context_tokens, created, settings.name)
            for model in settings.served
        }
        self._serve(self._configured)
        self._discovering: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._read = False

    @property
    def unread(self) -> bool:
        """Whether nobody can tell which models it serves: none is configured, and its list was never read."""
        return not self.settings.models and not self._read

    def models(self) -> list[ModelCard]:
        """The models that it serves, as far as is known now."""
        return [ModelCard(model.name, model.created, model.owned_by) for model in self._models.values()]

    def offer(self, model: str) -> Offer | None:
        """How it would serve ``model``."""
        return self._offers.get(model)

    def _serve(self, models: dict[str, ListedModel]) -> None:
        """Offer ``models`` from now on."""
        self._models = models
        self._offers = {
            name: Offer(
                priority=self.settings.priority,
                weight=self.settings.weight,
                seats=self.settings.concurrency,
                context_tokens=model.context_tokens,
                open=True,
                continues=self.settings.continuation != "none",
            )
            for name, model in models.items()
        }

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """Generate every choice. Raises ``ApiError``."""
        name, settings = self._upstream_name(generation.model), self.settings
        path, body = generation_request(
            generation, name, settings.continuation, continuous_usage=settings.continuous_usage
        )
        stream = ForeignStream(generation, continuous_usage=settings.continuous_usage)
        async with self._call("POST", path, body, generation.attempt) as call:
            head = await call.head()
            if head.status != 200:
                raise await refusal_of(head, call.exchange, generation.prompt_param)
            check_coding(head)
            if _media_type(head) == "application/json":
                chunk = stream.feed_whole(_said(await call.exchange.read(_ANSWER_BYTES)))
                if chunk is not None:
                    yield chunk
            else:
                async with contextlib.aclosing(_streamed(head, call, stream, generation.shortcut)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                call.answered = stream.done
        yield stream.end()

    async def embed(self, embedding: Embedding) -> Embedded:
        """Compute vectors. Raises ``ApiError``."""
        path, body = embedding_request(embedding, self._upstream_name(embedding.model))
        answer = await self._ask("POST", path, body, "input", _ANSWER_BYTES, embedding.attempt)
        return _embedded(answer, len(embedding.inputs))

    def status(self) -> list[dict[str, Any]]:
        """It has no engines here."""
        return []

    def ready(self) -> bool:
        """Another server's bad day does not make this one unready."""
        return True

    async def start(self) -> None:
        """Read the list of its models, and keep reading it. Returns without one where it does not come soon."""
        if not self.settings.models or any(not model.context_tokens for model in self._models.values()):
            self._discovering = asyncio.create_task(self._keep_discovering())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_S):
                    await self._asked.wait()

    async def stop(self) -> None:
        """Let go of idle connections. Running answers keep theirs until their end."""
        if self._discovering is not None:
            self._discovering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._discovering
        await self._pool.close()

    def _upstream_name(self, model: str) -> str:
        """What the server calls ``model``. It may have gone from the list since the request was admitted."""
        served = self._models.get(model)
        if served is None:
            raise ApiError("upstream_model_unavailable", detail="the provider does not list the model any more")
        return served.upstream_name

    def _call(self, method: str, path: str, body: bytes, attempt: Attempt) -> HttpCall:
        """A request, to be sent and watched."""
        form = self._forms.get((method, path))
        if form is None:
            form = self._forms[method, path] = self._pool.form(method, self._prefix + path, self._headers)
        return HttpCall(self._pool, form, body, self.settings, attempt)

    async def _ask(
        self, method: str, path: str, body: bytes, prompt_param: str, limit_bytes: int, attempt: Attempt
    ) -> Any:
        """A whole JSON answer, of which the head counts as the first token. Raises ``ApiError``."""
        async with self._call(method, path, body, attempt) as call:
            head = await call.head()
            if head.status != 200:
                raise await refusal_of(head, call.exchange, prompt_param)
            check_coding(head)
            call.deadlines.touch()
            answer = _json(_said(await call.exchange.read(limit_bytes, call.deadlines.touch)))
        failure = from_payload(answer, prompt_param=prompt_param)
        if failure is not None:
            raise failure
        return answer

    # Discovery

    async def _keep_discovering(self) -> None:
        pauses = pauses_s(self.settings.discovery_interval_s)
        while True:
            await self._discover()
            self._asked.set()
            await asyncio.sleep(self.settings.discovery_interval_s if self._read else next(pauses))

    async def listed(self) -> Mapping[str, ListedModel]:
        """What the server lists now, by its own names. Raises ``ApiError``."""
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s * 2):
                return read_listing(await self._ask("GET", MODELS_PATH, b"", "model", _LIST_BYTES, Attempt()))
        except TimeoutError:
            raise ApiError("upstream_timeout", detail="its list of models did not come in time") from None

    async def _discover(self) -> None:
        try:
            listed = await self.listed()
        except ApiError as error:
            _log.warning("provider %s: its list of models cannot be read: %s (%s)", self.name, error.code, error.detail)
        else:
            self._read = True
            self._learn(listed)

    def _learn(self, listed: Mapping[str, ListedModel]) -> None:
        if self.settings.models:
            configured = self._configured.items()
            self._serve(
                {
                    name: model if model.context_tokens else model.with_context(listed.get(model.upstream_name))
                    for name, model in configured
                }
            )
            return
        if listed.keys() != self._models.keys():
            _log.info("provider %s serves %s", self.name, ", ".join(listed) or "no model")
        self._serve({name: self._models.get(name, model).with_context(model) for name, model in listed.items()})


async def _streamed(
    head: Head, call: HttpCall, stream: ForeignStream, shortcut: Shortcut
) -> AsyncGenerator[Chunk, None]:
    """The chunks of an event stream, until ``[DONE]`` or its end, but for those that take the short way."""
    if _media_type(head) in _NO_STREAMS:
        raise ApiError("upstream_protocol_error", detail=f"a stream of {_media_type(head)}")
    parser = SseParser(_EVENT_BYTES)
    short = ShortText(parser, shortcut, _ANSWER_BYTES, call.deadlines.touch)
    call.exchange.tap = short.take
    try:
        async for data in call.exchange:
            for chunk in _chunks_in(short.counted(data), parser, stream, short):
                if _is_token(chunk):
                    call.deadlines.hold()  # a slow reader is not a slow provider
                    yield chunk
                    call.deadlines.touch()
                else:
                    yield chunk
            if stream.done:
                return
    except SseError as error:
        raise ApiError("upstream_protocol_error", detail=str(error)) from None
    except (ExchangeError, ApiError) as error:
        of_connection = isinstance(error, ExchangeError) or error is call.deadlines.failure
        if not of_connection or not stream.finished:
            raise
        _log.debug("the connection failed after a whole answer: %s", error)


def _chunks_in(data: bytes, parser: SseParser, stream: ForeignStream, short: ShortText) -> Iterator[Chunk]:
    """The chunks of a read. Raises ``ApiError``, ``SseError``."""
    for piece in short.pieces(data):
        events, chunk = parser.feed(piece), None
        for event in events:
            chunk = stream.feed(event.data)
            if stream.done:
                return
            if chunk is not None:
                yield chunk
        short.learn(events, chunk, goes_on=stream.goes_on)


def _is_token(chunk: Chunk) -> bool:
    """Whether a chunk says more than what nobody knows."""
    return any(one["delta"] or one["finish_reason"] or one.get("logprobs") for one in chunk["choices"])


def _media_type(head: Head) -> str:
    return head.headers.get("content-type", "").partition(";")[0].strip().lower()


def _said(body: bytes) -> bytes:
    """``body``, if it says anything. Raises ``ApiError``."""
    if not body or body.isspace():
        raise from_transport("empty")
    return body


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ApiError("upstream_protocol_error", detail=f"an answer that is no JSON: {body[:200]!r}") from None


def _embedded(answer: Any, count: int) -> Embedded:
    """The vectors of an answer, in the order of the inputs. Raises ``ApiError``."""
    try:
        rows = sorted(answer["data"], key=lambda row: row["index"])
        places = [row["index"] for row in rows]
        vectors = [_vector(row["embedding"]) for row in rows]
        tokens = (answer.get("usage") or {}).get("prompt_tokens")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ApiError("upstream_protocol_error", detail="embeddings that cannot be read") from None
    if places != list(range(count)):
        raise ApiError("upstream_protocol_error", detail=f"{len(vectors)} vectors for {count} inputs, or others")
    return Embedded(vectors, tokens if type(tokens) is int and tokens >= 0 else 0)


def _vector(numbers: Any) -> list[float]:
    """Raises ``TypeError`` and ``ValueError``."""
    if not numbers or not set(map(type, numbers)) <= {int, float}:
        raise ValueError("no vector")
    return list(map(float, numbers))


def provider_from(settings: ProviderSettings) -> HttpProvider:
    """The provider that ``settings`` describe, with its key from the environment. Raises ``ConfigError``."""
    key = settings.key(os.environ)
    try:
        request_head("GET", "/", {}, request_headers(key, settings.headers), 0)
    except ValueError:
        problem = f"the environment variable {settings.api_key_env} holds no key that can be sent"
        raise ConfigError([f"provider {settings.name}: api_key_env: {problem}"]) from None
    try:
        return HttpProvider(settings, key)
    except OSError as error:
        problem = f"its certificates cannot be read: {error.strerror or error}"
        raise ConfigError([f"provider {settings.name}: ca_file: {problem}"]) from None

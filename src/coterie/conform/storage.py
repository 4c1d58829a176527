"""Stored responses and conversations: kept as they were sent, remembered, resumed, cancelled, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, Final

from coterie.conform.check import BOTH, CONTRACT, OPENAI, Check, Failure, Site, Skip
from coterie.conform.exchange import Reply
from coterie.conform.judging import (
    RESPONSE_RULES,
    RULES,
    Wanted,
    contains,
    events_of,
    find,
    need,
    ok,
    ok_stream,
    refused,
    response_of,
    responses_stream,
    whole,
)
from coterie.conform.responses import ENDED, PATH, create
from coterie.dialects import responses_validator
from coterie.dialects.chat_validator import _ARRAY, _COUNT, _FILLED_TEXT, _TEXT_OR_NULL, _constant, _Kind, _Shape

_RUNNING: Final = ("queued", "in_progress")
_OVER: Final = ("completed", "incomplete", "failed", "cancelled")
_LOOK_EVERY_S: Final = 0.2
_LONG: Final = {"input": "Count from 1 to 1000.", "max_output_tokens": 1000}
_GONE: Final = Wanted((404,))

_FLAG: Final = _Kind("true or false", lambda value: isinstance(value, bool))
_ITEMS: Final = _Shape(
    "shape",
    {
        "object": _constant("list"),
        "data": _ARRAY,
        "has_more": _FLAG,
        "first_id": _TEXT_OR_NULL,
        "last_id": _TEXT_OR_NULL,
    },
)
_CONVERSATION: Final = _Shape("shape", {"id": _FILLED_TEXT, "object": _constant("conversation"), "created_at": _COUNT})


async def _stored(site: Site) -> Reply:
    """A response that is kept, the same for every check. Raises ``Skip`` where there is none."""
    reply = await site.once("stored", lambda: create(site, store=True, metadata={"purpose": "check"}))
    need(reply, what="POST /responses with store")
    return reply


def _at(reply: Reply, *rest: str) -> str:
    return "/".join((f"{PATH}/{find(reply.object, 'id')}", *rest))


def _same(got: Any, sent: Any, reply: Reply, what: str) -> Iterator[Failure]:
    """Whether two objects are equal; the fields that are not are named."""
    if got == sent:
        return
    names = {*(got if isinstance(got, dict) else ()), *(sent if isinstance(sent, dict) else ())}
    odd = sorted(name for name in names if find(got, name) != find(sent, name))
    yield RULES.broken("equal", f"{what} differs in {', '.join(odd) or 'everything'}", reply)


async def _get(site: Site) -> Iterable[Failure]:
    sent = await _stored(site)
    got = await site.ask("GET", _at(sent))
    return list(response_of(got, *ENDED)) or _same(got.object, sent.object, got, "the stored response")


async def _input_items(site: Site) -> Iterable[Failure]:
    got = await site.ask("GET", _at(await _stored(site), "input_items"))
    failures = list(ok(got)) or list(RULES.found(_ITEMS.misfits(got.object, ""), got))
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say hello."}]}
    if not failures and not contains(got.object["data"], [said]):
        failures.append(RULES.broken("equal", "the one item is not the message that was sent", got))
    if not failures and not isinstance(find(got.object, "data", 0, "id"), str):
        failures.append(RULES.broken("shape", "data[0].id is missing", got))
    return failures


async def _streamed(site: Site) -> Iterable[Failure]:
    await _stored(site)
    reply = await create(site, store=True, stream=True)
    failures = list(responses_stream(reply))
    final = find(events_of(reply.body), -1, "response")
    if failures or not isinstance(final, dict):
        return failures
    got = await site.ask("GET", f"{PATH}/{final.get('id')}")
    return list(ok(got)) or _same(got.object, final, got, "the stored response")


async def _unstored(site: Site) -> Iterable[Failure]:
    reply = need(await create(site, store=False), what="POST /responses")
    return refused(await site.ask("GET", _at(reply)), _GONE)


async def _delete(site: Site) -> Iterable[Failure]:
    await _stored(site)
    reply = need(await create(site, store=True), what="POST /responses with store")
    deleted = await site.ask("DELETE", _at(reply))
    failures = [*whole(deleted)]
    if not failures and deleted.status not in (200, 204):
        return [RULES.broken("success", f"the status is {deleted.status}", deleted)]
    for method, rest in (("GET", ()), ("DELETE", ()), ("GET", ("input_items",))):
        after = await site.ask(method, _at(reply, *rest))
        if after.status == 200:
            failures.append(RULES.broken("gone", f"{method} is answered after the deletion", after))
        else:
            failures += refused(after, _GONE)
    follow = await create(site, store=False, previous_response_id=reply.object["id"])
    if follow.status == 200:
        failures.append(RULES.broken("gone", "a deleted response is still remembered", follow))
    return failures


async def _memory(site: Site) -> Iterable[Failure]:
    await _stored(site)
    story = "My name is Ann. " * 10
    first = need(await create(site, store=True, input=story), what="POST /responses with store")
    alone = need(await create(site, input="Who am I?"), what="POST /responses")
    reply = await create(site, input="Who am I?", previous_response_id=first.object.get("id"))
    failures = list(response_of(reply, *ENDED))
    if failures:
        return failures
    if reply.object["previous_response_id"] != first.object["id"]:
        failures.append(RULES.broken("echo", "previous_response_id is not said", reply))
    before, after = (find(each.object, "usage", "input_tokens") for each in (alone, reply))
    if not (isinstance(before, int) and isinstance(after, int) and after > before + 20):
        failures.append(RULES.broken("effect", f"input_tokens are {after} with a history, {before} without", reply))
    return failures


# Background


async def _begun(site: Site, **changes: Any) -> Reply:
    """A response that runs in the background. Raises ``Skip`` where the server has no such thing."""
    reply = await create(site, store=True, background=True, **changes)
    return need(reply, what="POST /responses with background")


async def _over(site: Site, path: str) -> Reply:
    """Look at a response until it is over, or for as long as an exchange may take."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + site.client.timeout_s
    while True:
        reply = await site.ask("GET", path)
        if reply.status != 200 or reply.object.get("status") in _OVER or loop.time() > until_s:
            return reply
        await asyncio.sleep(_LOOK_EVERY_S)


async def _background(site: Site) -> Iterable[Failure]:
    reply = await create(site, store=True, background=True)
    failures = list(response_of(reply, *_RUNNING, *ENDED))
    if reply.status != 200:
        return failures
    if find(reply.object, "background") is not True:
        failures.append(RULES.broken("echo", "background is not said", reply))
    return [*failures, *response_of(await _over(site, _at(reply)), *ENDED)]


async def _cancel(site: Site) -> Iterable[Failure]:
    running = await _begun(site, **_LONG)
    reply = await site.ask("POST", _at(running, "cancel"), {})
    status = find(reply.object, "status")
    if reply.status in (400, 409) or status in ENDED:
        raise Skip("the response was over before it could be cancelled")
    failures = list(response_of(reply, "cancelled", *_RUNNING))
    return failures or response_of(await _over(site, _at(running)), "cancelled")


async def _cancel_stored(site: Site) -> Iterable[Failure]:
    return refused(await site.ask("POST", _at(await _stored(site), "cancel"), {}), Wanted((400, 409)))


async def _resume(site: Site) -> Iterable[Failure]:
    """The stream of a background response, read to its end and then read again from its middle."""
    reply = await _begun(site, stream=True)
    failures = list(responses_stream(reply))
    events = events_of(reply.body)
    given = find(events, 0, "response", "id")
    if failures or not given:
        return failures
    middle = len(events) // 2
    path = f"{PATH}/{given}?stream=true"
    again = await site.ask("GET", path)
    rest = await site.ask("GET", f"{path}&starting_after={middle - 1}")
    failures = [*ok_stream(again), *ok_stream(rest)]
    if not failures and events_of(again.body) != events:
        failures.append(RULES.broken("equal", "the stream that is read again is not the one that was sent", again))
    if not failures and events_of(rest.body) != events[middle:]:
        failures.append(RULES.broken("equal", f"the stream after event {middle - 1} is not the rest of it", rest))
    return failures


async def _cut(site: Site) -> Iterable[Failure]:
    """A stream that the client loses, and goes on reading where it was."""
    reply = await site.ask(
        "POST",
        PATH,
        {"model": site.model, "input": _LONG["input"], "max_output_tokens": 64, "store": True, "background": True,
         "stream": True},
        until=lambda body: body.count(b"\n\n") >= 4,
    )  # fmt: skip
    need(reply, what="POST /responses with background and stream")
    seen = reply.body[: reply.body.rfind(b"\n\n") + 2]
    events = events_of(seen)
    given, last = find(events, 0, "response", "id"), find(events, -1, "sequence_number")
    if not isinstance(given, str) or not isinstance(last, int):
        raise Skip("the stream has no response.id or no sequence numbers")
    rest = await site.ask("GET", f"{PATH}/{given}?stream=true&starting_after={last}")
    failures = [*ok_stream(rest), *whole(rest)]
    together = seen.removesuffix(b"data: [DONE]\n\n") + rest.body
    return failures or RESPONSE_RULES.judged(responses_validator.judge(together), rest)


# Conversations


async def _conversation(site: Site) -> Reply:
    reply = await site.once("conversation", lambda: _new_conversation(site))
    return need(reply, what="POST /conversations")


async def _new_conversation(site: Site) -> Reply:
    items = [{"type": "message", "role": "user", "content": "My name is Ann."}]
    return await site.ask("POST", "/conversations", {"metadata": {"topic": "check"}, "items": items})


def _conv(reply: Reply, *rest: str) -> str:
    return "/".join((f"/conversations/{find(reply.object, 'id')}", *rest))


async def _conversation_create(site: Site) -> Iterable[Failure]:
    reply = await site.once("conversation", lambda: _new_conversation(site))
    failures = [*ok(reply)] or [*RULES.found(_CONVERSATION.misfits(reply.object, ""), reply)]
    if not failures and not contains(reply.object.get("metadata"), {"topic": "check"}):
        failures.append(RULES.broken("echo", "metadata is not said", reply))
    return failures


async def _conversation_update(site: Site) -> Iterable[Failure]:
    made = await _conversation(site)
    updated = await site.ask("POST", _conv(made), {"metadata": {"topic": "other"}})
    got = await site.ask("GET", _conv(made))
    failures = [*ok(updated), *ok(got)]
    if not failures and find(got.object, "metadata") != {"topic": "other"}:
        failures.append(RULES.broken("equal", f"metadata is {find(got.object, 'metadata')}", got))
    return failures


async def _conversation_items(site: Site) -> Iterable[Failure]:
    made = await _conversation(site)
    items = [{"type": "message", "role": "user", "content": f"Note {number}"} for number in (1, 2)]
    added = await site.ask("POST", _conv(made, "items"), {"items": items})
    listed = await site.ask("GET", _conv(made, "items?order=asc&limit=100"))
    page = await site.ask("GET", _conv(made, "items?order=asc&limit=1"))
    failures = [*ok(added), *ok(listed), *ok(page)]
    if failures:
        return failures
    for reply in (added, listed, page):
        failures += RULES.found(_ITEMS.misfits(reply.object, ""), reply)
    if len(find(page.object, "data") or ()) != 1 or find(page.object, "has_more") is not True:
        failures.append(RULES.broken("effect", "limit=1 does not give one item and has_more", page))
    last = find(listed.object, "data", -1)
    given = find(last, "id")
    if given != find(added.object, "data", -1, "id") or not given:
        failures.append(RULES.broken("equal", "the item added last is not listed last", listed))
        return failures
    one = await site.ask("GET", _conv(made, "items", given))
    failures += [*ok(one)] or [*_same(one.object, last, one, "the item")]
    deleted = await site.ask("DELETE", _conv(made, "items", given))
    return [*failures, *ok(deleted), *refused(await site.ask("GET", _conv(made, "items", given)), _GONE)]


async def _conversation_turn(site: Site) -> Iterable[Failure]:
    await _stored(site)
    made = need(await _new_conversation(site), what="POST /conversations")
    given = find(made.object, "id")
    reply = await create(site, conversation=given, store=True, input="Who am I?")
    failures = list(response_of(reply, *ENDED))
    if failures:
        return failures
    if find(reply.object, "conversation", "id") != given:
        failures.append(RULES.broken("echo", "conversation.id is not said", reply))
    listed = await site.ask("GET", _conv(made, "items?order=asc&limit=100"))
    data = find(listed.object, "data")
    roles = [find(item, "role") for item in data] if isinstance(data, list) else []
    if roles[:2] != ["user", "user"] or "assistant" not in roles[2:]:
        failures.append(RULES.broken("effect", f"the turn is not in the conversation: roles {roles}", listed))
    return failures


async def _conversation_delete(site: Site) -> Iterable[Failure]:
    made = need(await _new_conversation(site), what="POST /conversations")
    deleted = await site.ask("DELETE", _conv(made))
    failures = [*ok(deleted)]
    if not failures and find(deleted.object, "deleted") is not True:
        failures.append(RULES.broken("shape", "deleted is not true", deleted))
    return [*failures, *refused(await site.ask("GET", _conv(made)), _GONE)]


CHECKS: Final = (
    Check("storage.get", "storage", "a stored response is what was answered", f"{OPENAI}; {CONTRACT}", _get),
    Check("storage.input_items", "storage", "the items of a response's input are listed", OPENAI, _input_items),
    Check("storage.stream", "storage", "what was streamed is what is stored", CONTRACT, _streamed),
    Check("storage.store.false", "storage", "store false stores nothing", BOTH, _unstored),
    Check("storage.delete", "storage", "what was deleted is gone: 404", OPENAI, _delete),
    Check("storage.memory", "storage", "previous_response_id: the turns before are remembered", BOTH, _memory),
    Check("storage.background", "storage", "a background response runs by itself, and is polled", BOTH, _background),
    Check("storage.cancel", "storage", "a background response is cancelled while it runs", OPENAI, _cancel),
    Check("storage.cancel.stored", "storage", "only background responses 'can be cancelled'", OPENAI, _cancel_stored),
    Check("storage.resume", "storage", "starting_after: the events after it, the same", OPENAI, _resume),
    Check("storage.resume.cut", "storage", "a lost stream goes on where it broke", OPENAI, _cut),
    Check("storage.conversation", "storage", "a conversation is made", OPENAI, _conversation_create),
    Check("storage.conversation.update", "storage", "a conversation's metadata changes", OPENAI, _conversation_update),
    Check("storage.conversation.items", "storage", "items are added, listed, read, deleted", OPENAI,
          _conversation_items),
    Check("storage.conversation.turn", "storage", "a turn's input and output join its conversation", OPENAI,
          _conversation_turn),
    Check("storage.conversation.delete", "storage", "a deleted conversation is gone: 404", OPENAI,
          _conversation_delete),
)  # fmt: skip
"""The group."""

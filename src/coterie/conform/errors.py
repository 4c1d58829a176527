"""The errors that can be provoked from outside: each has its status, its shape, and names what is at fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from coterie.conform.check import CONTRACT, OPENAI, Check, Failure, Run, Site, Skip
from coterie.conform.errors_cases import CASES, GOOD, Case
from coterie.conform.exchange import Reply
from coterie.conform.judging import Wanted, has_request_id, refused

_CHAT: Final = "/chat/completions"
_ROOTS: Final = (_CHAT, "/completions", "/embeddings", "/responses", "/conversations")


async def _need_route(site: Site, path: str) -> None:
    """Skip where the server has no such route at all: what it says of an unknown path is judged once."""
    root = next((root for root in _ROOTS if path.startswith(root)), None)
    if root is None:
        return
    reply = await site.once(f"route {root}", lambda: site.ask("POST", root, {}))
    if reply.status in (404, 405, 501) and b"model" not in reply.body:
        raise Skip(f"the server has no POST {reply.path}")


def _provoke(case: Case) -> Run:
    async def run(site: Site) -> Iterable[Failure]:
        await _need_route(site, case.path)
        headers = {"content-type": case.content_type} if case.content_type else {}
        reply = await site.ask(case.method, case.path, case.body(site.model), headers=headers)
        if case.optional and reply.status == 200:
            raise Skip("the server reads it all the same")
        return refused(reply, case.wanted)

    return run


def _with_key(key: str | None) -> Run:
    async def run(site: Site) -> Iterable[Failure]:
        if site.client.target.key is None:
            raise Skip("no key was given")
        headers = site.client.target.authorization(key)
        reply: Reply = await site.ask("POST", _CHAT, {"model": site.model, **GOOD[_CHAT]}, headers=headers, keyed=False)
        return refused(reply, Wanted((401,)))

    return run


async def _request_id(site: Site) -> Iterable[Failure]:
    return has_request_id(await site.ask("POST", _CHAT, {"model": site.model, **GOOD[_CHAT], "messages": "Hello"}))


CHECKS: Final = (
    Check("errors.request-id", "errors", "an error has an x-request-id", CONTRACT, _request_id),
    Check("errors.key.missing", "errors", "a request without a key is 401", f"{OPENAI}; {CONTRACT}", _with_key(None)),
    Check("errors.key.wrong", "errors", "a wrong key is 401", f"{OPENAI}; {CONTRACT}", _with_key("sk-wrong-key")),
    *(Check(f"errors.{case.id}", "errors", case.says, case.source, _provoke(case)) for case in CASES),
)
"""The group."""

"""A server whose models are served by upstreams that misbehave: one model name for each fault."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import Server, serving

from coterie.testbed.upstream import FaultyUpstream

TOKENS = 60
"""Tokens of every whole answer."""

WHOLE = "".join(f" w{number}" for number in range(TOKENS))
"""The answer that every upstream gives, each from its own beginning or from where another was cut."""

_PROVIDER = """
[[providers]]
name = "{name}"
base_url = "{url}"
priority = {priority}
first_token_timeout_s = 0.5
idle_timeout_s = 0.5
total_timeout_s = 3
{models}
"""

_SERVER = """
[limits]
body_bytes = 8388608

[dispatch]
open_s = 0.01
open_max_s = 0.01
{dispatch}
"""


@dataclass(frozen=True)
class Behind:
    """A running server and the upstreams behind it, in the order in which they are asked."""

    server: Server
    upstreams: tuple[FaultyUpstream, ...]


@contextlib.contextmanager
def behind(
    folder: Path, *rows: Mapping[str, str], dispatch: str = "", models: tuple[str, ...] = (), marker: str = ""
) -> Iterator[Behind]:
    """Serve every name of ``rows``, which are one upstream each, from the name to its fault.

    ``models`` are the providers' settings of that name, where they say more than names.
    """
    with contextlib.ExitStack() as stack:
        upstreams = tuple(stack.enter_context(FaultyUpstream(models=dict(row), marker=marker)) for row in rows)
        config = _SERVER.format(dispatch=dispatch) + "".join(
            _PROVIDER.format(
                name=f"provider-{place}",
                url=upstream.base_url,
                priority=place,
                models=models[place] if models else f"models = {json.dumps(list(row))}",
            )
            for place, (upstream, row) in enumerate(zip(upstreams, rows, strict=True))
        )
        yield Behind(stack.enter_context(serving(folder, config)), upstreams)

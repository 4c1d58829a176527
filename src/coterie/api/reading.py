"""Reading a request in the way of those who serve its model, and the clock of that."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from coterie.dialects.chat import DialectLimits, ParsedRequest
from coterie.dialects.chat_models import MAX_MODEL_NAME
from coterie.dispatch.router import Reading, Router
from coterie.errors import ApiError
from coterie.observe.timing import Timing
from coterie.wire.lingua import Generation

Parse = Callable[[dict[str, Any], DialectLimits], ParsedRequest]


def check_named(router: Router, model: object) -> None:
    """Raise ``ApiError`` for a model that nobody serves, before anything is said of a request that nobody would judge.

    What cannot be a model's name is left to the dialect.
    """
    if isinstance(model, str) and 0 < len(model) <= MAX_MODEL_NAME:
        router.check(model)


def read(
    router: Router, body: dict[str, Any], limits: DialectLimits, parse: Parse, parse_openly: Parse
) -> ParsedRequest:
    """The request in ``body``. Raises ``ApiError``."""
    return _read(router.reading(body.get("model")), body, limits, parse, parse_openly)


def read_served(
    router: Router, body: dict[str, Any], limits: DialectLimits, parse: Parse, parse_openly: Parse
) -> ParsedRequest:
    """The same after :func:`check_named`, with one look at who serves the model."""
    model = body.get("model")
    reading = router.reading(model)
    if reading is Reading.KNOWN:  # or nobody serves it
        check_named(router, model)
    return _read(reading, body, limits, parse, parse_openly)


def _read(
    reading: Reading, body: dict[str, Any], limits: DialectLimits, parse: Parse, parse_openly: Parse
) -> ParsedRequest:
    parsed = parse(body, limits) if reading is Reading.KNOWN else parse_openly(body, limits)
    if reading is not Reading.BOTH:
        return parsed
    generation = dataclasses.replace(parsed.generation, known=_known(parse, body, limits))
    return dataclasses.replace(parsed, generation=generation)


def _known(parse: Parse, body: dict[str, Any], limits: DialectLimits) -> Generation | ApiError:
    try:
        return parse(body, limits).generation
    except ApiError as error:
        return error


def start_of(request: Request) -> Timing:
    """The clock of a request; until here it was let in."""
    timing = Timing(request.scope["coterie.exchange"].started_s)
    timing.admit_s = time.perf_counter() - timing.started_s
    return timing


def parsed_now(timing: Timing) -> None:
    """The request is read, and found good."""
    timing.parse_s = time.perf_counter() - timing.started_s - timing.admit_s


def owner_of(request: Request) -> str:
    """Whose request it is, as its key told."""
    owner: str = request.scope["coterie.owner"]
    return owner

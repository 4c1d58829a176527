"""Recorded exchanges: the file, how a request is recognised, and a folder of them.

One file is one exchange, as JSON with this form (``format`` is :data:`FORMAT`, ``version`` :data:`VERSION`; a change of
meaning is a new version, and a file of another version is refused)::

    {
      "format": "coterie-exchange", "version": 1,
      "request": {
        "method": "POST",
        "path": "/v1/chat/completions",         with its query
        "headers": [["content-type", "application/json"], ...],
        "body": {"json": {...}}                 or {"text": "..."}, {"base64": "..."}, or null for none
      },
      "response": {                             null where none came
        "status": 200, "reason": "OK",
        "headers": [...],                       those that frame the body included
        "head_ms": 12.5,                        when the head came
        "chunks": [[20.0, "data: ..."], [40.1, {"base64": "..."}], ...]
      },
      "ended": "complete",
      "ended_ms": 812.0
    }

Times are milliseconds since the request was whole. The chunks are the body as it came, without the chunked encoding;
one that is no UTF-8 is base64. ``ended`` says how:

===========  ==========================================================================================================
complete     the body came whole, by its framing
closed       the upstream closed the connection too early
reset        the upstream reset the connection
unreachable  no connection could be made
client_gone  the client left, or ended its side, before the end; what would have come is not known
===========  ==========================================================================================================

Secrets are taken out before a file is written (:mod:`coterie.testbed.scrub`). A request is recognised by its digest:
method, path without the query, and of a JSON body the :data:`MEANINGFUL_FIELDS`, where ``null`` is as good as absent;
any other body counts as a whole. Files are named ``NUMBER-DIGEST.json`` and played in the order of their names.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from coterie.testbed.scrub import scrub_chunks, scrub_headers, scrub_json, scrub_target, scrub_text

FORMAT: Final = "coterie-exchange"
VERSION: Final = 1

MAX_FILE_BYTES: Final = 128 * 1024 * 1024
MAX_FILES: Final = 10_000

MEANINGFUL_FIELDS: Final = (
    "model", "messages", "prompt", "input", "instructions", "stream", "n", "tools", "tool_choice", "functions",
    "response_format", "text",
)  # fmt: skip
"""Fields of a request's JSON that its answer depends on, but for sampling."""

_NEAREST_CHARS: Final = 4000
"""Characters of two requests that are compared where no digest is the same."""

Ended = Literal["complete", "closed", "reset", "unreachable", "client_gone"]
Headers = list[tuple[str, str]]


class ExchangeFileError(ValueError):
    """A file is no recorded exchange; the text names it and says why."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path}: {reason}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Base64(_Part):
    """Bytes that are no UTF-8."""

    base64: str

    @model_validator(mode="after")
    def _decodable(self) -> Base64:
        try:
            base64.b64decode(self.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"no base64: {error}") from None
        return self


class JsonBody(_Part):
    """A body that is a JSON object or list."""

    json_value: JsonValue = Field(alias="json")


class TextBody(_Part):
    """A body that is any other text."""

    text: str


Milliseconds = Annotated[float, Field(ge=0, le=1e10, strict=False)]
_HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
_HeaderValue = Annotated[str, Field(pattern=r"^[^\r\n\x00]*$")]
_Header = Annotated[tuple[_HeaderName, _HeaderValue], Field(strict=False)]
_Chunk = Annotated[tuple[Milliseconds, str | Base64], Field(strict=False)]


class Request(_Part):
    """What the client sent."""

    method: Annotated[str, Field(pattern=r"^[A-Z-]{1,32}$")]
    path: Annotated[str, Field(pattern=r"^[!-~]+$")]
    headers: list[_Header]
    body: JsonBody | TextBody | Base64 | None


class Response(_Part):
    """What the upstream answered."""

    status: Annotated[int, Field(ge=100, le=999)]
    reason: _HeaderValue
    headers: list[_Header]
    head_ms: Milliseconds
    chunks: list[_Chunk]

    def header(self, name: str) -> str | None:
        """The value of the header ``name`` (in lower case), the last where there are several."""
        return next((value for key, value in reversed(self.headers) if key.lower() == name), None)

    @property
    def is_chunked(self) -> bool:
        """Whether the body is framed by the chunked encoding."""
        return (self.header("transfer-encoding") or "").lower().rpartition(",")[2].strip() == "chunked"

    @property
    def body(self) -> bytes:
        """All chunks together."""
        return b"".join(chunk_bytes(chunk) for _, chunk in self.chunks)


class Exchange(_Part):
    """One recorded exchange. See the module for the meaning of each field."""

    format: Literal["coterie-exchange"] = FORMAT
    version: Literal[1] = VERSION
    request: Request
    response: Response | None
    ended: Ended
    ended_ms: Milliseconds

    @model_validator(mode="after")
    def _consistent(self) -> Exchange:
        if self.response is None and self.ended == "complete":
            raise ValueError("an exchange without a response cannot be complete")
        if self.response is not None and self.ended == "unreachable":
            raise ValueError("an upstream that could not be reached has not answered")
        return self


def chunk_bytes(chunk: str | Base64) -> bytes:
    """The bytes of a recorded chunk."""
    return base64.b64decode(chunk.base64) if isinstance(chunk, Base64) else chunk.encode()


def recorded_chunk(data: bytes) -> str | Base64:
    """``data`` as it is written down."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Base64(base64=base64.b64encode(data).decode())


def scrubbed_request(method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> Request:
    """A request as it is kept: without secrets, its body parsed."""
    return Request(
        method=method, path=scrub_target(target), headers=scrub_headers(headers), body=_request_body(body)
    )  # fmt: skip


def _request_body(body: bytes) -> JsonBody | TextBody | Base64 | None:
    if not body:
        return None
    try:
        value = json.loads(body)
        if isinstance(value, dict | list):
            return JsonBody(json=scrub_json(value))
    except (ValueError, RecursionError):  # no JSON, or some that pydantic does not take
        pass
    kept = recorded_chunk(scrub_chunks([body])[0])
    return kept if isinstance(kept, Base64) else TextBody(text=kept)


def scrubbed_response(response: Response) -> Response:
    """A response as it is kept: without secrets, and with a content-length that is right for what is left."""
    before = [chunk_bytes(chunk) for _, chunk in response.chunks]
    after = scrub_chunks(before)
    if before == after:
        chunks = response.chunks
    else:
        chunks = [(at, recorded_chunk(data)) for (at, _), data in zip(response.chunks, after, strict=True)]
    grown = sum(map(len, after)) - sum(map(len, before))
    headers = [
        (name, str(max(0, int(value) + grown)) if name.lower() == "content-length" and value.isdigit() else value)
        for name, value in scrub_headers(response.headers)
    ]
    return response.model_copy(
        update={"reason": scrub_text(response.reason), "headers": headers, "chunks": chunks}
    )  # fmt: skip


def meaning(request: Request) -> dict[str, Any]:
    """What a request is recognised by."""
    known: dict[str, Any] = {"method": request.method, "path": request.path.partition("?")[0]}
    body = request.body
    value = body.json_value if isinstance(body, JsonBody) else None
    if isinstance(value, dict):
        fields = {name: value.get(name) for name in MEANINGFUL_FIELDS}
        return known | {name: field for name, field in fields.items() if field is not None and field is not False}
    return known | ({"body": body.model_dump(by_alias=True)} if body is not None else {})


def digest(request: Request) -> str:
    """The SHA-256 of a request's meaning as canonical JSON: keys sorted, no white space."""
    return hashlib.sha256(_canonical(meaning(request)).encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def write(folder: Path, number: int, exchange: Exchange) -> Path:
    """Write ``exchange`` into ``folder``, readable by its owner alone, whole or not at all. Raises ``OSError``."""
    path = folder / f"{number:06d}-{digest(exchange.request)[:12]}.json"
    unfinished = path.with_suffix(".part")
    text = json.dumps(exchange.model_dump(by_alias=True), indent=1, ensure_ascii=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
    unfinished.replace(path)
    return path


def read(path: Path) -> Exchange:
    """Read one file. Raises :class:`ExchangeFileError` for one that is not what the module describes."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ExchangeFileError(path, f"more than {MAX_FILE_BYTES} bytes")
        return Exchange.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise ExchangeFileError(path, f"cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in error.errors())
        raise ExchangeFileError(path, "; ".join(islice(problems, 3))) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ExchangeFileError):
            raise
        raise ExchangeFileError(path, f"no JSON: {error}") from None


def next_number(folder: Path) -> int:
    """The number after those of the files in ``folder``."""
    numbers = [path.name.partition("-")[0] for path in folder.glob("*-*.json")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1


@dataclass(frozen=True, slots=True)
class Nearest:
    """The recording that is most like a request, and the fields in which it differs."""

    file: str
    differs_in: Sequence[str]


class Library:
    """Recorded exchanges by what they answer. Several of the same request are given out in turn, then the last."""

    def __init__(self, exchanges: Iterable[tuple[str, Exchange]]) -> None:
        """Each with the name of its file, in the order in which they are played."""
        self._by_digest: dict[str, list[tuple[str, Exchange]]] = {}
        for name, exchange in exchanges:
            self._by_digest.setdefault(digest(exchange.request), []).append((name, exchange))
        self._played: dict[str, int] = dict.fromkeys(self._by_digest, 0)

    @classmethod
    def load(cls, folder: Path) -> Library:
        """Every exchange of ``folder``. Raises :class:`ExchangeFileError`, also for a folder without any."""
        paths = sorted(folder.glob("*.json"))
        if not paths:
            raise ExchangeFileError(folder, "there is no recorded exchange in it")
        if len(paths) > MAX_FILES:
            raise ExchangeFileError(folder, f"more than {MAX_FILES} files")
        return cls((path.name, read(path)) for path in paths)

    def __len__(self) -> int:
        return sum(map(len, self._by_digest.values()))

    def take(self, request: Request) -> Exchange | None:
        """The next recording of ``request``, which is scrubbed; ``None`` where there is none."""
        key = digest(request)
        recordings = self._by_digest.get(key)
        if recordings is None:
            return None
        place = min(self._played[key], len(recordings) - 1)
        self._played[key] += 1
        return recordings[place][1]

    def nearest(self, request: Request) -> Nearest | None:
        """What comes closest to ``request``: the fewest fields that differ, then the most similar text."""
        wanted = meaning(request)
        first = [recordings[0] for recordings in self._by_digest.values()]
        if not first:
            return None
        differing = [(_differing(wanted, meaning(exchange.request)), name, exchange) for name, exchange in first]
        fewest = min(len(fields) for fields, _, _ in differing)
        rivals = [each for each in differing if len(each[0]) == fewest][:64]
        text = _canonical(wanted)[:_NEAREST_CHARS]
        fields, name, _ = max(rivals, key=lambda each: _likeness(text, meaning(each[2].request)))
        return Nearest(name, fields)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]


def _likeness(text: str, other: Mapping[str, Any]) -> float:
    return difflib.SequenceMatcher(None, text, _canonical(other)[:_NEAREST_CHARS], autojunk=False).quick_ratio()

"""What a provider said when it failed, unwrapped: any body at all becomes one :class:`Foreign`. Pure.

What it promises:

* It never raises, and its work is bounded: by :data:`READ_BYTES` of the body, :data:`MAX_NODES` JSON values, and
  :data:`MAX_TEXT` characters of any one text.
* It looks at structure alone. Errors come as ``{"error": {...}}``, ``{"error": "text"}``, flat objects, lists of one,
  ``detail`` (text, or validation issues), problem documents, JSON inside of strings, Python reprs inside of strings,
  JSON that was cut off, text, HTML, and as nothing. All of them say the same few things under different names; the
  names are the tables below.
* What a provider says by structure is kept apart from what merely stands in its sentences: those may repeat the
  caller's own words. ``sure_names`` and ``sure_texts`` are the provider's; a status found in a sentence does not
  overrule a status that says that the request is at fault.
* A number in the place of a code (``400``, ``"429"``) is a status that the body states, never a code.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

READ_BYTES: Final = 256 * 1024
"""Of a longer body only :data:`SALVAGE_BYTES` are looked at."""

SALVAGE_BYTES: Final = 16 * 1024
MAX_NODES: Final = 64
MAX_DEPTH: Final = 7
MAX_TEXT: Final = 4000
_MAX_IDS: Final = 32
_MAX_ID: Final = 64

UNKNOWN_STATUS: Final = 502
"""The status of an error that came with a success status and states none itself."""

_TEXT_KEYS: Final = (
    "message", "error_message", "errorMessage", "error_msg", "Message", "msg", "detail", "error_description",
    "status_msg", "description", "error", "raw", "title", "faultstring",
)  # fmt: skip
"""Where a text may stand, the most telling first."""

_ID_KEYS: Final = (
    "code", "type", "error_type", "errorType", "__type", "error_code", "errorCode", "status", "reason", "limit_source",
    "errorcode",
)  # fmt: skip
"""Where a machine-readable name may stand."""

_STATUS_KEYS: Final = (
    "code", "status", "status_code", "statusCode", "http_status_code", "http_status", "raw_status_code", "http_code",
    "error_code",
)  # fmt: skip

_NESTED_KEYS: Final = (
    "error", "errors", "detail", "details", "message", "innererror", "metadata", "raw", "response", "base_resp",
    "body", "cause", "fieldViolations", "fault",
)  # fmt: skip

_PARAM_KEYS: Final = ("param", "parameter", "field")

_DELAY_KEYS: Final[Mapping[str, float]] = {
    "retry_after_ms": 0.001, "retry_after": 1, "retryAfter": 1, "retry_after_seconds": 1, "retryDelay": 1,
    "estimated_time": 1,
}  # fmt: skip
"""Fields that say how long to wait, and what one of their units is in seconds."""

_RAW_KEYS: Final = frozenset({"raw", "body"})
"""Where a gateway keeps the whole answer of somebody behind it, as text."""
_RAW_STARTS: Final = ("", "[", "data: ")
_BETWEEN: Final = " \n\t-:"

_LIMIT_KEYS: Final = ("n_ctx", "max_context_length", "context_length")
_ACTUAL_KEYS: Final = ("n_prompt_tokens", "prompt_tokens")

_GENERIC: Final = frozenset({400, 500, 502})
"""Statuses that a gateway gives for want of a better one: a more telling status in the body replaces them."""

ECHOING: Final = frozenset({400, 413, 422})
"""Statuses that blame the request: their sentences may repeat anything that the caller sent."""

_WRAPPER: Final = re.compile(
    r"(?=litellm\.|Error code)(?:litellm\.\w{1,60}: ?)?"
    r"(?:\w{1,60}Exception ?[:-]? ?)?(?:Error code: \d{3})?(?: - )?b?['\"]?"
)
"""What SDKs and gateways write in front of an answer that they repeat as it came."""

_SALVAGED: Final = re.compile(
    r'"(message|error|detail|code|type|param|status|msg|error_type)"\s{0,8}:\s{0,8}(?:"((?:[^"\\]|\\.){1,2000})|(\d{1,9}))'
)
_STATUS_IN_TEXT: Final = re.compile(r"(?i)\b(?:error code|status code|status|http(?:/1\.1)?)[ :=]{1,3}([45]\d\d)\b")
_CLASS_AT_START: Final = re.compile(
    r"^(?:[\w.]{0,80}\.)?([A-Z]\w{0,60}(?:Error|Exception))\b:?(?: \w{1,40}Exception)?[ :-]{0,3}(\w{0,60}Error)?"
)
_HTML: Final = re.compile(r"(?i)<(?:!doctype|html|head|body|title|script|center)\b")
_PAGE: Final = re.compile(r"(?i)<(?:!doctype html|html|head|body|title|center)\b")
_PYTHON: Final = re.compile(r"'((?:[^'\\]|\\.)*)'|(\"(?:[^\"\\]|\\.)*\")|\b(None|True|False)\b|([()])|(,)\s*(?=[)\]}])")
_PYTHON_WORDS: Final = {"None": "null", "True": "true", "False": "false", "(": "[", ")": "]"}
_ERROR_MARKS: Final = frozenset({"error", "message", "detail", "msg"})
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Issue:
    """One complaint of a validator: where, what."""

    place: tuple[str | int, ...]
    text: str
    kind: str = field(default="", compare=False)
    """The validator's name for it."""


@dataclass(slots=True)
class Foreign:
    """A failure in a provider's words, sorted by what they are. All text is untrusted and uncleaned."""

    status: int = UNKNOWN_STATUS
    """HTTP's, or the more telling one that the body states."""
    status_known: bool = False
    status_sure: bool = False
    """The status is HTTP's or a field's, not one that a sentence has."""
    sure_status: int | None = None
    """What HTTP or a field says, whatever a sentence has; ``None`` where neither says anything."""
    names: list[str] = field(default_factory=list)
    """Machine-readable names as they came: codes, types, reasons."""
    sure_names: list[str] = field(default_factory=list)
    """Those of them that stand in fields, not in sentences."""
    texts: list[str] = field(default_factory=list)
    """Sentences, the most telling first."""
    sure_texts: list[str] = field(default_factory=list)
    """Whole texts of fields, the way they came."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that a gateway repeats in its body, with lower-case names."""
    issues: list[Issue] = field(default_factory=list)
    param: str | None = None
    limit: int | None = None
    """Tokens that fit, where a field says so."""
    actual: int | None = None
    """Tokens that were sent, where a field says so."""
    delay: float | str | None = None
    """How long to wait where a field says so: seconds, or a duration in words."""
    empty: bool = False
    """The body had no bytes but white space."""
    holds_answer: bool = False
    """A sentence has another answer in it."""
    is_html: bool = False
    """The body is a page: a proxy, a firewall or a portal wrote it."""

    @property
    def ids(self) -> frozenset[str]:
        """The names reduced to lower-case letters and digits, so that every spelling is one."""
        return _reduced(self.names)

    @property
    def sure_ids(self) -> frozenset[str]:
        """The names of fields, reduced likewise."""
        return _reduced(self.sure_names)

    @property
    def text(self) -> str:
        """All sentences, for matching."""
        return " \n".join([*self.texts, *(issue.text for issue in self.issues)])[: 2 * MAX_TEXT]


def read_body(status: int, body: bytes) -> Foreign:
    """Unwrap the body of an HTTP answer with ``status``."""
    if len(body) <= READ_BYTES:
        try:
            return read_value(status, orjson.loads(body))
        except orjson.JSONDecodeError:
            pass
    text = body[:SALVAGE_BYTES].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text[:1] in ("{", "["):
        return _read(status, _salvage(text), sure=False)
    foreign = read_value(status, text)
    foreign.empty = not text
    foreign.is_html = _PAGE.match(text) is not None
    return foreign


def read_value(status: int, value: object) -> Foreign:
    """Unwrap parsed JSON that came with ``status``."""
    return _read(status, value, sure=True)


def _read(status: int, value: object, *, sure: bool) -> Foreign:
    reader = _Reader()
    reader.read(value, sure)
    foreign = reader.found
    foreign.texts = [*reader.inner_texts, *foreign.texts]
    certain = _judge(status, [stated for stated, is_sure in reader.statuses if is_sure])
    told = _judge(status, [stated for stated, _ in reader.statuses])
    foreign.status_sure = certain[0] == told[0] or (certain[1] and certain[0] in ECHOING)
    foreign.status, foreign.status_known = certain if foreign.status_sure else told
    foreign.sure_status = certain[0] if certain[1] else None
    return foreign


def _reduced(names: Iterable[str]) -> frozenset[str]:
    return frozenset(re.sub(r"[^a-z0-9]", "", name.lower()) for name in names)


def _judge(status: int, stated: list[int]) -> tuple[int, bool]:
    telling = next((one for one in stated if one not in _GENERIC), None)
    if status >= 400 and status not in _GENERIC:
        return status, True
    if telling is not None:
        return telling, True
    if status >= 300:
        return (stated[0] if stated and stated[0] == 400 and status >= 500 else status), True
    return (stated[0], True) if stated else (UNKNOWN_STATUS, False)


class _Reader:
    """Walks a JSON value breadth first, and into the values that its strings hold."""

    def __init__(self) -> None:
        self.found = Foreign()
        self.inner_texts: list[str] = []
        """From values inside of strings: whoever wrapped them says less than they do."""
        self.statuses: list[tuple[int, bool]] = []
        """Statuses, and whether they stand in a field."""
        self._queue: deque[tuple[object, int, bool, bool]] = deque()

    def read(self, value: object, sure: bool) -> None:
        self._queue.append((value, 0, False, sure))
        for _ in range(MAX_NODES):
            if not self._queue:
                return
            node, depth, inner, sure = self._queue.popleft()
            if isinstance(node, dict):
                self._object(node, depth, inner, sure)
            elif isinstance(node, list):
                for item in node[:8]:
                    self._later(item, depth, inner, sure)
            elif isinstance(node, str):
                self._text(node, depth, inner, sure, is_raw=depth == 0)

    def _later(self, value: object, depth: int, inner: bool, sure: bool) -> None:
        if depth < MAX_DEPTH and isinstance(value, (dict, list, str)):
            self._queue.append((value, depth + 1, inner, sure))

    def _object(self, node: dict[Any, Any], depth: int, inner: bool, sure: bool) -> None:
        if isinstance(node.get("loc"), list) and isinstance(node.get("msg"), str):
            self.found.issues.append(
                Issue(_place(node["loc"]), node["msg"][:MAX_TEXT], str(node.get("type"))[:_MAX_ID])
            )
            return
        for key in _TEXT_KEYS:
            if isinstance(node.get(key), str):
                self._text(node[key], depth, inner, sure, is_raw=key in _RAW_KEYS)
        self._names(node, sure)
        self._numbers(node, sure)
        for key in _NESTED_KEYS:
            if isinstance(node.get(key), (dict, list)):
                self._later(node[key], depth, inner, sure)
        choices = node.get("choices")
        if isinstance(choices, list):
            for choice in choices[:4]:
                if isinstance(choice, dict) and choice.get("error"):
                    self._later({"error": choice["error"]}, depth, inner, sure)

    def _names(self, node: dict[Any, Any], sure: bool) -> None:
        for key in _STATUS_KEYS:
            self._status(node.get(key), sure)
        for key in _ID_KEYS:
            value = node.get(key)
            if isinstance(value, int) and not isinstance(value, bool):
                value = str(value)[:_MAX_ID]
            if isinstance(value, str):
                self._name(value, sure)
        error = node.get("error")
        if isinstance(error, str) and " " not in error.strip():
            self._name(error, sure)
        for key in _PARAM_KEYS:
            if self.found.param is None and isinstance(node.get(key), str) and node[key]:
                self.found.param = node[key][:200]

    def _name(self, value: str, sure: bool) -> None:
        if value and len(value) <= _MAX_ID and len(self.found.names) < _MAX_IDS and _as_status(value) is None:
            self.found.names.append(value)
            if sure:
                self.found.sure_names.append(value)

    def _status(self, value: object, sure: bool) -> None:
        status = _as_status(value)
        if status is not None:
            self.statuses.append((status, sure))

    def _numbers(self, node: dict[Any, Any], sure: bool) -> None:
        self.found.limit = self.found.limit or _first_count(node, _LIMIT_KEYS)
        self.found.actual = self.found.actual or _first_count(node, _ACTUAL_KEYS)
        if not sure:
            return
        if isinstance(node.get("headers"), dict):
            self._headers(node["headers"])
        for key, unit_s in _DELAY_KEYS.items():
            value = node.get(key)
            if self.found.delay is not None or isinstance(value, bool):
                continue
            if isinstance(value, (int, float)):
                self.found.delay = float(value) * unit_s if abs(value) < 1e12 else None
            elif isinstance(value, str):
                self.found.delay = value[:64]

    def _headers(self, headers: dict[Any, Any]) -> None:
        for name, value in list(headers.items())[:50]:
            if isinstance(name, str) and isinstance(value, (str, int)) and len(str(value)[:65]) <= 64:
                self.found.headers.setdefault(name.lower()[:_MAX_ID], str(value))

    def _text(self, text: str, depth: int, inner: bool, sure: bool, *, is_raw: bool) -> None:
        text = text[: 2 * MAX_TEXT].strip()
        if not text or _HTML.search(text):
            return
        outside, held = _embedded(text) if not inner else (text, None)
        self._words(outside)
        if sure:
            self.found.sure_texts.append(text[:MAX_TEXT])
        if held is not None:
            self.found.holds_answer = True
            before = text[: text.find("{")]
            is_whole = before in _RAW_STARTS if is_raw else before != "" and _WRAPPER.fullmatch(before) is not None
            self._later(
                held, depth, True, sure and is_whole and outside == before.strip(_BETWEEN) and text[-1] in "}]'\""
            )
        if outside:
            (self.inner_texts if inner else self.found.texts).append(outside[:MAX_TEXT])

    def _words(self, text: str) -> None:
        """What a wrapper put in front of the text: an exception's class, a status."""
        if (named := _CLASS_AT_START.match(text[:300])) is not None:
            for name in named.groups():
                if name:
                    self._name(name, sure=False)
        if (stated := _STATUS_IN_TEXT.search(text[:300])) is not None:
            self._status(stated[1], sure=False)


def _embedded(text: str) -> tuple[str, object]:
    """The text before a JSON object or Python dict that reads like an error, and that object; else ``None`` for it."""
    for start in _starts(text):
        rest = text[start:]
        for candidate in (rest, _PYTHON.sub(_as_json, rest)):
            held = _decode(candidate)
            if isinstance(held, list) and held:
                held = held[0]
            if isinstance(held, dict) and _ERROR_MARKS & held.keys():
                return text[:start].strip(_BETWEEN), held
    return text, None


def _starts(text: str) -> Iterator[int]:
    start = -1
    for _ in range(3):
        start = text.find("{", start + 1)
        if start < 0:
            return
        yield start


def _decode(text: str) -> object:
    try:
        return _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _as_json(match: re.Match[str]) -> str:
    single, double, word, bracket, comma = match.groups()
    if single is not None:
        return json.dumps(single.replace("\\'", "'").replace("\\n", " "))
    if double is not None:
        return double
    return "" if comma else _PYTHON_WORDS[word or bracket]


def _salvage(text: str) -> dict[str, Any]:
    """What can be read of a JSON object that is cut off or broken; the first of each name counts."""
    found: dict[str, Any] = {}
    for match in _SALVAGED.finditer(text):
        name, string, number = match.groups()
        found.setdefault(name, int(number) if number else _unescaped(string))
    return found


def _unescaped(string: str) -> str:
    value = _decode(f'"{string}"')
    return value if isinstance(value, str) else string


def _as_status(value: object) -> int | None:
    if isinstance(value, str):
        value = int(value) if len(value) == 3 and value.isascii() and value.isdigit() else None
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
        return value
    return None


def _first_count(node: dict[Any, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = node.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9:
            return value
    return None


def _place(loc: list[Any]) -> tuple[str | int, ...]:
    return tuple(part for part in loc[:12] if isinstance(part, (str, int)) and not isinstance(part, bool))

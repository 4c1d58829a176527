r"""Reads what a model wrote under :mod:`coterie.engines.tool_prompt` back into OpenAI's chat deltas. Pure.

The text is one *envelope* in JSON, with white space anywhere between its parts:

    {"content": STRING} | {"json": VALUE} | {"tool_calls": [{"name": STRING, "arguments": VALUE}, ...]}

What it promises, for any division of the text into pieces:

* the deltas together say what the envelope says: content is the decoded string, ``json`` the text as it came; of each
  call the name comes once, with a fresh id and empty arguments, then its arguments as they came;
* nothing waits for what it does not need: each piece yields all that it completes. Only an escape is held back until it
  is whole, the first half of a surrogate pair until the second is there. A half alone becomes U+FFFD;
* text of another form is ``upstream_protocol_error``, also a text that is at its end before the envelope is;
* a reader keeps no more than a name, an escape and the open brackets, all bounded.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Generator
from typing import Any, Final

from coterie.errors import ApiError

Delta = dict[str, Any]
_Steps = Generator[None, str, None]
_Char = Generator[None, str, str]

LONGEST_NAME: Final = 256
MOST_OPEN_BRACKETS: Final = 10_000

_SPACE: Final = " \t\r\n"
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}
_CLOSING: Final = {"{": "}", "[": "]"}
_LONE_SURROGATE: Final = "\ufffd"
_ID_CHARS: Final = string.ascii_letters + string.digits


def new_call_id() -> str:
    """An id as OpenAI's are: ``call_`` and 24 letters or digits."""
    return "call_" + "".join(secrets.choice(_ID_CHARS) for _ in range(24))


class ToolReader:
    """One answer's reader. ``named``: the request named the function to call; then a whole answer ends with "stop".

    (OpenAI's API does so: "tool_calls" tells a client that the model chose to call.)
    """

    def __init__(self, *, named: bool = False, new_id: Callable[[], str] = new_call_id) -> None:
        self._named = named
        self._new_id = new_id
        self._calls = 0
        self._whole = False
        self._deltas: list[Delta] = []
        self._parts = {"content": self._content, "json": self._json, "tool_calls": self._tool_calls}
        self._steps = self._envelope()
        next(self._steps)

    def feed(self, text: str) -> list[Delta]:
        """What ``text``, the next piece, adds to the answer. Raises ``ApiError`` ``upstream_protocol_error``."""
        try:
            for char in text:
                self._steps.send(char)
        except StopIteration:
            raise _malformed("more text after a fault") from None
        deltas, self._deltas = self._deltas, []
        return deltas

    def finish(self, reason: str) -> str:
        """The finish reason for a client, from the engine's. Raises ``ApiError`` ``upstream_protocol_error``."""
        if reason != "stop":
            return reason
        if not self._whole:
            raise _malformed("the text ended before its JSON")
        return "tool_calls" if self._calls and not self._named else "stop"

    def _envelope(self) -> _Steps:
        yield from self._expect("{")
        key = yield from self._name()
        yield from self._expect(":")
        if key not in self._parts:
            raise _malformed(f"an unknown part {key!r}")
        yield from self._parts[key]()
        self._whole = True
        while True:
            char = yield
            if char not in _SPACE:
                raise _malformed(f"{char!r} after the end")

    def _content(self) -> _Steps:
        yield from self._expect('"')
        yield from self._string(lambda text: self._say({"content": text}))
        yield from self._expect("}")

    def _json(self) -> _Steps:
        char = yield from self._value(lambda text: self._say({"content": text}))
        if char != "}":
            raise _malformed(f"{char!r} where '}}' should be")

    def _tool_calls(self) -> _Steps:
        yield from self._expect("[")
        char = ","
        while char == ",":
            yield from self._call()
            char = yield from self._next()
        if char != "]":
            raise _malformed(f"{char!r} between calls")
        yield from self._expect("}")

    def _call(self) -> _Steps:
        yield from self._expect("{")
        yield from self._key("name")
        name = yield from self._name()
        index, self._calls = self._calls, self._calls + 1
        function = {"name": name, "arguments": ""}
        self._say({"tool_calls": [{"index": index, "id": self._new_id(), "type": "function", "function": function}]})
        yield from self._expect(",")
        yield from self._key("arguments")
        char = yield from self._value(
            lambda text: self._say({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        )
        if char != "}":
            raise _malformed(f"{char!r} after a call's arguments")

    def _key(self, wanted: str) -> _Steps:
        key = yield from self._name()
        if key != wanted:
            raise _malformed(f"{key!r} where {wanted!r} should be")
        yield from self._expect(":")

    def _name(self) -> _Char:
        """A short string, whole."""
        parts: list[str] = []

        def keep(text: str) -> None:
            parts.append(text)
            if len(parts) > LONGEST_NAME:
                raise _malformed("a name without end")

        yield from self._expect('"')
        yield from self._string(keep)
        return "".join(parts)

    def _string(self, say: Callable[[str], None]) -> _Steps:
        """The rest of a string after its quote, decoded."""
        held = ""
        while True:
            char = yield
            if char != "\\":
                if held:
                    say(_LONE_SURROGATE)
                    held = ""
                if char == '"':
                    return
                if char < " ":
                    raise _malformed("a control character in a string")
                say(char)
                continue
            decoded = yield from self._escape()
            held = _joined(held, decoded, say)

    def _escape(self) -> _Char:
        char = yield
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char != "u":
            raise _malformed(f"an unknown escape {char!r}")
        digits = ""
        for _ in range(4):
            digit = yield
            digits += digit
        if not all(digit in string.hexdigits for digit in digits):
            raise _malformed("an escape of no hexadecimal digits")
        return chr(int(digits, 16))

    def _value(self, say: Callable[[str], None]) -> _Char:
        """Any value, as it comes. Returns the first character after it that is not white space."""
        char = yield from self._next()
        if char not in '{["':
            return (yield from self._scalar(char, say))
        say(char)
        if char == '"':
            yield from self._raw_string(say)
        else:
            yield from self._container(char, say)
        return (yield from self._next())

    def _scalar(self, char: str, say: Callable[[str], None]) -> _Char:
        if not (char.isascii() and (char.isalnum() or char == "-")):
            raise _malformed(f"{char!r} where a value should be")
        while char.isascii() and (char.isalnum() or char in "+-."):
            say(char)
            char = yield
        return (yield from self._next()) if char in _SPACE else char

    def _container(self, char: str, say: Callable[[str], None]) -> _Steps:
        expected = [_CLOSING[char]]
        while expected:
            char = yield
            say(char)
            if char == '"':
                yield from self._raw_string(say)
            elif char in _CLOSING:
                expected.append(_CLOSING[char])
            elif char in "]}" and expected.pop() != char:
                raise _malformed("brackets that do not match")
            if len(expected) > MOST_OPEN_BRACKETS:
                raise _malformed("brackets without end")

    def _raw_string(self, say: Callable[[str], None]) -> _Steps:
        char = ""
        while char != '"':
            char = yield
            say(char)
            if char == "\\":
                char = yield
                say(char)
                char = ""

    def _expect(self, wanted: str) -> _Steps:
        char = yield from self._next()
        if char != wanted:
            raise _malformed(f"{char!r} where {wanted!r} should be")

    def _next(self) -> _Char:
        """The next character that is not white space."""
        char = yield
        while char in _SPACE:
            char = yield
        return char

    def _say(self, delta: Delta) -> None:
        """Add ``delta``, joined to the last one where both continue the same text."""
        if not (self._deltas and _join(self._deltas[-1], delta)):
            self._deltas.append(delta)


def _joined(held: str, decoded: str, say: Callable[[str], None]) -> str:
    """Say what an escape means, with the half that was held back; returns the half to hold back now."""
    if held and "\udc00" <= decoded <= "\udfff":
        say((held + decoded).encode("utf-16", "surrogatepass").decode("utf-16"))
        return ""
    if held:
        say(_LONE_SURROGATE)
    if "\ud800" <= decoded <= "\udbff":
        return decoded
    say(_LONE_SURROGATE if "\udc00" <= decoded <= "\udfff" else decoded)
    return ""


def _join(last: Delta, delta: Delta) -> bool:
    """Lengthen ``last`` by ``delta``, if they are content, or arguments of one call."""
    if "content" in delta and "content" in last:
        last["content"] += delta["content"]
        return True
    if "tool_calls" in delta and "tool_calls" in last:
        call, more = last["tool_calls"][0], delta["tool_calls"][0]
        if call["index"] == more["index"]:
            call["function"]["arguments"] += more["function"]["arguments"]
            return True
    return False


def _malformed(what: str) -> ApiError:
    return ApiError("upstream_protocol_error", detail=f"tool envelope: {what}")

"""Chunks of the lingua franca into one ``chat.completion``. Pure. Whole or a failure, by the same rules as a stream."""

from __future__ import annotations

from typing import Any

from coterie.wire.choices import Choices
from coterie.wire.lingua import Chunk


class ChatFold:
    """Gathers the answer of ``choices`` choices. ``created`` is Unix time in seconds."""

    def __init__(self, answer_id: str, created: int, model: str, *, choices: int) -> None:
        self._choices = Choices(choices)
        self._messages = [_Message() for _ in range(choices)]
        self._extra: dict[str, Any] = {}
        self._head = {"id": answer_id, "object": "chat.completion", "created": created, "model": model}

    def feed(self, chunk: Chunk) -> None:
        """Take ``chunk`` in. Raises ``ApiError``."""
        if "extra" in chunk:
            self._extra.update(chunk["extra"])
        said = self._choices.admit(chunk)
        for choice in said:
            self._messages[choice["index"]].add(choice)
        if len(said) < len(chunk.get("choices") or ()):
            for entry in chunk["choices"]:
                self._messages[entry["index"]].add_late(entry.get("extra") or {})

    def text(self, index: int, text: str, extra: dict[str, Any] | None) -> bool:
        """Take in a piece of text with which a choice goes on; false, and nothing is done, where that needs a chunk."""
        goes_on = self._choices.goes_on(index)
        if goes_on:
            self._messages[index].add_text("content", text)
            if extra is not None:
                self._extra.update(extra)
        return goes_on

    def end(self) -> dict[str, Any]:
        """The whole answer. Raises ``ApiError`` where it is not whole."""
        self._choices.check_whole()
        choices = [message.choice(index) for index, message in enumerate(self._messages)]
        answer = {**self._head, "choices": choices}
        if self._choices.usage is not None:
            answer["usage"] = self._choices.usage
        return answer | {name: value for name, value in self._extra.items() if name not in answer}


class _Message:
    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._others: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._calls: list[dict[str, Any]] = []
        self._logprobs: dict[str, list[dict[str, Any]]] = {"content": [], "refusal": []}
        self._finish: str | None = None

    def add(self, choice: dict[str, Any]) -> None:
        for name, value in choice["delta"].items():
            if name == "tool_calls":
                for fragment in value:
                    self._add_call(fragment)
            elif isinstance(value, str):
                self.add_text(name, value)
            elif isinstance(value, list) and isinstance(before := self._others.get(name, []), list):
                self._others[name] = [*before, *value]
            else:
                self._others[name] = value
        self._extra.update(choice.get("extra") or {})
        for name, entries in (choice["logprobs"] or {}).items():
            self._logprobs[name] += entries or []
        self._finish = choice["finish_reason"] or self._finish

    def add_text(self, name: str, text: str) -> None:
        self._texts.setdefault(name, []).append(text)

    def add_late(self, extra: dict[str, Any]) -> None:
        """Take in what is not known and stands beside nothing; before the finish reason it comes again with more."""
        if self._finish is not None:
            self._extra.update(extra)

    def choice(self, index: int) -> dict[str, Any]:
        texts = {name: "".join(parts) for name, parts in self._texts.items()}
        message: dict[str, Any] = {
            "role": "assistant",
            "content": texts.pop("content", None if self._calls else ""),
            "refusal": texts.pop("refusal", None),
            **self._others,
            **texts,
        }
        if self._calls:
            message["tool_calls"] = self._calls
        logprobs = {name: entries or None for name, entries in self._logprobs.items()}
        return {
            **self._extra,
            "index": index,
            "message": message,
            "logprobs": logprobs if any(logprobs.values()) else None,
            "finish_reason": self._finish,
        }

    def _add_call(self, fragment: dict[str, Any]) -> None:
        function = fragment["function"]
        extra = {name: value for name, value in fragment.items() if name not in ("index", "id", "type", "function")}
        if fragment["index"] == len(self._calls):
            self._calls.append({"id": fragment["id"], "type": "function", "function": dict(function), **extra})
        else:
            call = self._calls[fragment["index"]]
            call["function"]["arguments"] += function["arguments"]
            call.update(extra)

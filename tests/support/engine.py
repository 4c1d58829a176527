"""The real engine with the default model, small."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from tests.support.models import END_OF_TEXT, END_OF_TURN, model_file
from tests.support.waiting import until

from coterie.engines.llama_cpp import LlamaCppEngine
from coterie.engines.llama_request import Job, chat_job, text_job
from coterie.engines.spec import EngineSpec

SPEC = EngineSpec(
    model="m", path="", slots=2, context_tokens=256, queue=8, queue_timeout_s=60, threads=0, gpu_layers=0,
    load_timeout_s=60, first_token_timeout_s=60, idle_timeout_s=60, unload_after_s=0,
)  # fmt: skip

NEVER_ENDING = {"max_tokens": 200, "logit_bias": {END_OF_TURN: -100, END_OF_TEXT: -100}}


def spec(**changes: Any) -> EngineSpec:
    return dataclasses.replace(SPEC, **{"path": str(model_file()), **changes})


def hello(**body: Any) -> Job:
    """A chat of one short answer."""
    return chat_job({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0, **body}, 0)


def story(**body: Any) -> Job:
    """A text of 200 tokens."""
    return text_job({**NEVER_ENDING, **body}, "Once upon a time", 0)


async def text_of(engine: LlamaCppEngine, job: Job) -> str:
    """The text of a whole answer, with a ticket of its own."""
    tickets = engine.enter(1)
    try:
        chunks = [chunk async for chunk in engine.generate(tickets[0], job, "messages", 60)]
    finally:
        engine.leave(tickets)
    assert "usage" in chunks[-1]
    assert [choice["finish_reason"] for choice in chunks[-2]["choices"]] != [None]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    await until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Whether a process runs. One whose exit status nobody has taken yet does not."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not os.path.isdir("/proc/self")


async def tokenize(engine: LlamaCppEngine, text: str) -> list[int]:
    """The token ids of ``text``, from the engine's own server."""
    answer = await engine._post("/tokenize", {"content": text, "add_special": False})
    return [int(token) for token in answer["tokens"]]

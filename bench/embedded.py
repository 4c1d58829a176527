"""What the server costs over the engine alone: throughput, time to the first token, memory.

Two ways to do the same work, interleaved in one run so that the machine's moods hit both alike:

* *engine*: a process with nothing but the engine and the same parameters, asked through xllamacpp's own Python
  interface, one thread for each stream, and timed inside (`bench/engine_alone.py`);
* *server*: `coterie serve`, asked over TCP with HTTP and server-sent events, and timed at the client.

Both compute each prompt from its start, so that every round is the same work. Every stream asks for the same number of
tokens (end of text is barred by `logit_bias`, so that each is exactly as long), greedy, with prompts of one length but
with words of their own. Prints ratios; writes docs/benchmarks/embedded.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvloop

from coterie.config import DEFAULT_MODEL, load_settings
from coterie.engines.process import worker_request
from coterie.engines.spec import EngineSpec
from coterie.models.store import ModelStore
from coterie.version import __version__
from coterie.wire.http1 import Connection, Exchange, request_bytes
from coterie.wire.sse import SseParser

STREAMS = (1, 4, 8)
SLOTS = 8
CONTEXT_TOKENS = 1024
END_OF_TEXT = "2"
WORDS = ("river", "engine", "garden", "winter", "copper", "letter", "island", "market")


@dataclass(frozen=True)
class Sample:
    """One round of streams: seconds to the first token of each, tokens in all, seconds in all."""

    first_token_s: list[float]
    tokens: int
    elapsed_s: float


class Target(Protocol):
    """Something that answers a round of requests. ``pids`` are the processes whose memory counts."""

    name: str
    pids: tuple[int, ...]

    async def round(self, bodies: list[dict[str, Any]]) -> Sample:
        """Answer all bodies at once."""
        ...


def body_for(stream: int, round_number: int, tokens: int) -> dict[str, Any]:
    word = WORDS[stream % len(WORDS)]
    return {
        "model": DEFAULT_MODEL,
        "messages": [{"role": "user", "content": f"Tell a long story number {round_number} about a {word}."}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "logit_bias": {END_OF_TEXT: -100},
    }


async def measure(target: Target, streams: int, round_number: int, tokens: int) -> Sample:
    return await target.round([body_for(stream, round_number, tokens) for stream in range(streams)])


class Engine:
    """The engine in a process of its own."""

    name = "engine"

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pids: tuple[int, ...] = (process.pid,)

    async def round(self, bodies: list[dict[str, Any]]) -> Sample:
        # The server asks for the same where an answer must be reproducible, as at temperature 0.
        answer = await self.ask([{**body, "cache_prompt": False} for body in bodies])
        streams = answer["streams"]
        return Sample([first for first, _ in streams], sum(pieces for _, pieces in streams), answer["elapsed_s"])

    async def ask(self, line: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer


class Served:
    """The server."""

    name = "server"

    def __init__(self, port: int, pids: tuple[int, ...]) -> None:
        self._port = port
        self.pids = pids

    async def round(self, bodies: list[dict[str, Any]]) -> Sample:
        started_s = time.perf_counter()
        streams = await asyncio.gather(*(self._stream(body) for body in bodies))
        elapsed_s = time.perf_counter() - started_s
        return Sample([first for first, _ in streams], sum(pieces for _, pieces in streams), elapsed_s)

    async def _stream(self, body: dict[str, Any]) -> tuple[float, int]:
        """Seconds to the first text, and the pieces of text that came."""
        started_s = time.perf_counter()
        exchange = await ask(self._port, "POST", "/v1/chat/completions", json.dumps(body).encode())
        head = await exchange.head()
        if head.status != 200:
            raise RuntimeError(await exchange.read(65536))
        parser = SseParser()
        first_s, pieces = 0.0, 0
        async for data in exchange.chunks():
            for event in parser.feed(data):
                if event.data != b"[DONE]" and json.loads(event.data)["choices"][0]["delta"].get("content"):
                    first_s = first_s or time.perf_counter() - started_s
                    pieces += 1
        exchange.close()
        return first_s, pieces


async def ask(port: int, method: str, path: str, body: bytes) -> Exchange:
    exchange = Exchange(request_bytes(method, path, {"content-type": "application/json"}, body))
    connection = Connection(exchange)
    await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
    return exchange


def spec(path: Path) -> EngineSpec:
    return EngineSpec(
        model=DEFAULT_MODEL, path=str(path), slots=SLOTS, context_tokens=CONTEXT_TOKENS, queue=8, queue_timeout_s=60,
        threads=0, gpu_layers=-1, load_timeout_s=120, first_token_timeout_s=120, idle_timeout_s=60, unload_after_s=0,
    )  # fmt: skip


@asynccontextmanager
async def engine_alone(path: Path) -> AsyncIterator[Engine]:
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("engine_alone.py")),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        engine = Engine(process)
        try:
            await engine.ask(worker_request(spec(path), folder, "bench"))
            yield engine
        finally:
            process.kill()
            await process.wait()


@asynccontextmanager
async def server(path: Path) -> AsyncIterator[Served]:
    with tempfile.TemporaryDirectory() as state:
        command = [
            str(Path(sys.executable).with_name("coterie")), "serve", "--port", "0", "--state-dir", state, "--preload",
            "--slots", str(SLOTS), "--context-tokens", str(CONTEXT_TOKENS), "--model", f"{DEFAULT_MODEL}={path}",
            "--log-level", "warning",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        try:
            port, engine_pid = await greeted(process)
            yield Served(port, (process.pid, engine_pid))
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def greeted(process: asyncio.subprocess.Process) -> tuple[int, int]:
    """The port that the server says it listens on, and its engine's process once that is ready."""
    assert process.stdout is not None
    async for line in process.stdout:
        match = re.search(rb"http://127\.0\.0\.1:(\d+)/v1", line)
        if match:
            port = int(match[1])
            while True:
                status = await status_of(port)
                if status["engines"][0]["state"] == "ready":
                    return port, status["engines"][0]["pid"]
                await asyncio.sleep(0.1)
    raise RuntimeError("the server did not start")


async def status_of(port: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await (await ask(port, "GET", "/status", b"")).read(65536))
    return answer


def memory_mb(pid: int) -> float:
    """Private and proportional memory of a process (PSS where the system tells, else resident)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(re.search(r"^Pss:\s+(\d+) kB", text, re.M)[1]) / 1024  # type: ignore[index]
    except OSError:
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) / 1024


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return statistics.median(server / engine for engine, server in pairs)


async def run(rounds: int, tokens: int, first_rounds: int) -> dict[str, Any]:
    path = ModelStore(load_settings(environ={}).models_dir).path_of(DEFAULT_MODEL)
    results: dict[str, Any] = {"streams": {}}
    async with engine_alone(path) as alone, server(path) as served:
        for target in (alone, served):
            await measure(target, SLOTS, 0, 8)
        for streams in STREAMS:
            rates = await compare(alone, served, streams, rounds, tokens)
            results["streams"][streams] = rates | await compare_first_tokens(alone, served, streams, first_rounds)
        results["memory_mb"] = {
            "engine alone": memory_mb(alone.pids[0]),
            "server": memory_mb(served.pids[0]),
            "engine behind the server": memory_mb(served.pids[1]),
        }
    return results


async def interleaved(
    alone: Target, served: Target, streams: int, rounds: int, tokens: int
) -> list[tuple[Sample, Sample]]:
    """The same work by both in each round, in turn the one first and the other."""
    pairs = []
    for number in range(1, rounds + 1):
        order = (alone, served) if number % 2 else (served, alone)
        samples = {target.name: await measure(target, streams, number, tokens) for target in order}
        pairs.append((samples["engine"], samples["server"]))
    return pairs


async def compare(alone: Target, served: Target, streams: int, rounds: int, tokens: int) -> dict[str, float]:
    pairs = await interleaved(alone, served, streams, rounds, tokens)
    rates = [(engine.tokens / engine.elapsed_s, server_.tokens / server_.elapsed_s) for engine, server_ in pairs]
    return {
        "engine_tokens_per_s": statistics.median(rate for rate, _ in rates),
        "server_tokens_per_s": statistics.median(rate for _, rate in rates),
        "tokens_ratio": median_ratio(rates),
    }


async def compare_first_tokens(alone: Target, served: Target, streams: int, rounds: int) -> dict[str, float]:
    """Times to the first token, from short answers of which there can be many."""
    pairs = await interleaved(alone, served, streams, rounds, 2)
    firsts = [
        (statistics.median(engine.first_token_s), statistics.median(server_.first_token_s)) for engine, server_ in pairs
    ]
    added = [server_ - engine for engine, server_ in firsts]
    quarter, _, three_quarters = statistics.quantiles(added, n=4)
    return {
        "engine_ttft_ms": statistics.median(first for first, _ in firsts) * 1000,
        "server_ttft_ms": statistics.median(first for _, first in firsts) * 1000,
        "added_ttft_ms": statistics.median(added) * 1000,
        "added_low_ms": quarter * 1000,
        "added_high_ms": three_quarters * 1000,
    }


def help_time_s(times: int = 7) -> float:
    command = [str(Path(sys.executable).with_name("coterie")), "--help"]
    taken = []
    for _ in range(times):
        started_s = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - started_s)
    return statistics.median(taken)


def report(results: dict[str, Any], rounds: int, tokens: int, first_rounds: int, help_s: float) -> str:
    memory = results["memory_mb"]
    lines = [
        "# The embedded engine, alone and behind the server",
        "",
        f'`make bench-embedded ARGS="--rounds {rounds} --tokens {tokens} --first-rounds {first_rounds}"` '
        "wrote this page: "
        f"coterie {__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, model {DEFAULT_MODEL}, {SLOTS} slots, "
        f"{rounds} interleaved rounds of {tokens} tokens a stream. "
        f"Times to the first token: {first_rounds} more rounds of 2 tokens. "
        "Medians; a ratio is the median of the rounds' ratios, what is added that of their differences.",
        "",
        "*engine*: xllamacpp's own Python interface in a process of its own, one thread for each stream, timed inside.",
        "*server*: `coterie serve` with the same parameters, asked over TCP, timed at the client.",
        "",
        "| streams | engine tokens/s | server tokens/s | ratio | engine TTFT ms | server TTFT ms | added TTFT ms "
        "| quartiles |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for streams, row in results["streams"].items():
        lines.append(
            f"| {streams} | {row['engine_tokens_per_s']:.1f} | {row['server_tokens_per_s']:.1f} "
            f"| {row['tokens_ratio']:.3f} | {row['engine_ttft_ms']:.1f} | {row['server_ttft_ms']:.1f} "
            f"| {row['added_ttft_ms']:+.1f} | {row['added_low_ms']:+.1f} to {row['added_high_ms']:+.1f} |"
        )
    lines += [
        "",
        "Several streams that begin at once: the engine alone shares steps of 128 tokens of prompt between them, each "
        "of some hundred milliseconds, and all wait for the same end. The server has one prompt computed after the "
        "other, so half of them begin sooner.",
    ]
    over = memory["server"] + memory["engine behind the server"] - memory["engine alone"]
    lines += [
        "",
        "| memory | MB |",
        "|---|--:|",
        *(f"| {name} | {size:.0f} |" for name, size in memory.items()),
        f"| over the engine alone | {over:.0f} |",
        "",
        f"`coterie --help` takes {help_s * 1000:.0f} ms (median of 7).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--first-rounds", type=int, default=21)
    parser.add_argument("--write", type=Path, default=Path("docs/benchmarks/embedded.md"))
    options = parser.parse_args()
    results = uvloop.run(run(options.rounds, options.tokens, options.first_rounds))
    page = report(results, options.rounds, options.tokens, options.first_rounds, help_time_s())
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(page)
    print(page)


if __name__ == "__main__":
    main()

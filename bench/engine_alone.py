"""The engine without a server, for comparison: xllamacpp's own Python interface, one thread for each stream.

Reads the worker's parameters, then rounds of request bodies, one JSON line each; answers each round with one line.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coterie.engines.llama_worker import engine_params


def main() -> None:
    import xllamacpp

    request = json.loads(sys.stdin.readline())
    server = xllamacpp.Server(engine_params(xllamacpp, request))
    with ThreadPoolExecutor(request["slots"]) as pool:
        say({"ready": True})
        for line in sys.stdin:
            bodies = json.loads(line)
            started_s = time.perf_counter()
            streams = list(pool.map(lambda body: one_stream(server, body), bodies))
            say({"streams": streams, "elapsed_s": time.perf_counter() - started_s})


def one_stream(server: Any, body: dict[str, Any]) -> tuple[float, int]:
    """Seconds to the first text, and the pieces of text that came."""
    started_s = time.perf_counter()
    first_s: list[float] = []

    def take(chunk: dict[str, Any]) -> bool:
        if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
            first_s.append(time.perf_counter() - started_s)
        return False

    server.handle_chat_completions(body, take)
    return first_s[0], len(first_s)


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Servers that tests share, with a marker in every path and key that could leak.

Engines get one thread each: where engines have more threads than there are cores, those that wait for one another slow
all of them down a hundredfold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from tests.support.counting_proxy import CountingProxy
from tests.support.leaks import MARKER
from tests.support.models import damaged_copy, model_file
from tests.support.server import Server, serving
from tests.support.tally import TRIED

API_KEY = f"{MARKER}-api-key"

_GENERAL = """
[limits]
body_bytes = 8388608

[dispatch]
attempts = 1

[engine]
slots = 4
context_tokens = 1024
threads = 1

[[models]]
name = "smollm2-135m-instruct"
path = "{model}"

[[models]]
name = "single"
path = "{model}"
engine = {{ slots = 1, queue = 0, context_tokens = 2048 }}

[[models]]
name = "impatient"
path = "{model}"
engine = {{ slots = 1, queue = 4, queue_timeout_s = 0.2, context_tokens = 2048 }}

[[models]]
name = "fragile"
path = "{model}"
engine = {{ slots = 2, context_tokens = 2048 }}

[[models]]
name = "stalling"
path = "{model}"
engine = {{ slots = 2, context_tokens = 2048, idle_timeout_s = 2 }}

[[models]]
name = "late"
path = "{model}"
engine = {{ slots = 1, first_token_timeout_s = 0.001 }}

[[models]]
name = "damaged"
path = "{damaged}"
"""

_GUARDED = """
[server]
api_keys = ["{key}"]
cors_origins = ["https://app.example"]

[limits]
body_timeout_s = 0.5
header_timeout_s = 0.5
header_bytes = 8192

[[models]]
name = "smollm2-135m-instruct"
path = "{model}"
"""


@pytest.fixture(scope="session")
def linked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model under a path with the marker."""
    link = tmp_path_factory.mktemp(f"{MARKER}-models") / f"{MARKER}.gguf"
    link.symlink_to(model_file())
    return link


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, linked_model: Path) -> Iterator[Server]:
    """The default model, and models of which each has one way to fail."""
    folder = tmp_path_factory.mktemp(f"{MARKER}-general")
    config = _GENERAL.format(model=linked_model, damaged=damaged_copy(folder))
    with serving(folder, config) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, linked_model: Path) -> Iterator[Server]:
    """A server with a key, one origin, and little patience at its edge."""
    folder = tmp_path_factory.mktemp(f"{MARKER}-guarded")
    with serving(folder, _GUARDED.format(key=API_KEY, model=linked_model)) as running:
        yield running


@pytest.fixture
def new_server(tmp_path: Path, linked_model: Path) -> Iterator[Callable[..., Server]]:
    """Start a server for one test: ``new_server(config, *arguments)``; "{model}" in the configuration is the file."""
    with contextlib.ExitStack() as stack:

        def start(config: str, *arguments: str, name: str = "own") -> Server:
            folder = tmp_path / f"{MARKER}-{name}"
            return stack.enter_context(serving(folder, config.replace("{model}", str(linked_model)), *arguments))

        yield start


@pytest.fixture
def proxy(server: Server) -> Iterator[CountingProxy]:
    """Counts the requests to ``server``."""
    with CountingProxy(server.port) as counting:
        yield counting


@pytest.fixture
def client(proxy: CountingProxy) -> Iterator[OpenAI]:
    """The official SDK with its own defaults (two retries), through ``proxy``."""
    with OpenAI(base_url=proxy.base_url, api_key="unused") as sdk:
        yield sdk


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what the fuzzers did."""
    if TRIED:
        by_source = ", ".join(f"{count} {source}" for source, count in sorted(TRIED.items()))
        terminalreporter.write_line(f"fuzz: {TRIED.total()} requests tried ({by_source})")

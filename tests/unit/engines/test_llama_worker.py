"""The worker's side: the settings it gives to llama.cpp, and its life."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import xllamacpp
from tests.support.engine import spec

from coterie.engines.llama_worker import engine_params
from coterie.engines.process import worker_request

PARAMS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "model": ({}, "model.path", spec().path),
    "name": ({}, "model_alias", {"m"}),
    "socket": ({}, "hostnames", ["/folder/e.sock"]),
    "key": ({}, "api_keys", ["key"]),
    "slots": ({"slots": 3}, "n_parallel", 3),
    "context is for each slot": ({"slots": 3, "context_tokens": 256}, "n_ctx", 768),
    "HTTP threads outnumber slots": ({"slots": 30}, "n_threads_http", 34),
    "steps are short on a CPU": ({"gpu_layers": 0}, "n_batch", 128),
    "steps are whole": ({"gpu_layers": 0}, "n_ubatch", 128),
    "an input to embed is one step": ({"task": "embed", "context_tokens": 512}, "n_ubatch", 512),
    "embeddings": ({"task": "embed"}, "embedding", True),
    "no embeddings": ({}, "embedding", False),
    "layers": ({"gpu_layers": 7}, "n_gpu_layers", 7),
    "threads": ({"threads": 3}, "cpuparams.n_threads", 3),
    "threads of a prompt": ({"threads": 3}, "cpuparams_batch.n_threads", 3),
    "template": ({"chat_template": "{{ x }}"}, "chat_template", "{{ x }}"),
    "no template": ({}, "chat_template", ""),
    "no web page": ({}, "ui", False),
    "slots can be seen": ({}, "endpoint_slots", True),
    "no cache beside the slots": ({}, "cache_ram_mib", 0),
    "the mean": (
        {"task": "embed", "pooling": "mean"},
        "pooling_type",
        xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN,
    ),
    "the model's own pooling": (
        {"task": "embed"},
        "pooling_type",
        xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_UNSPECIFIED,
    ),
}


@pytest.mark.parametrize(("changes", "name", "value"), PARAMS.values(), ids=PARAMS.keys())
def test_the_settings_of_llama_cpp(changes: dict[str, Any], name: str, value: Any) -> None:
    request = worker_request(spec(**changes), "/folder", "key")
    found: Any = engine_params(xllamacpp, json.loads(json.dumps(request)))
    for part in name.split("."):
        found = getattr(found, part)
    assert found == value


async def run(stdin: bytes, **environment: str) -> tuple[int | None, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coterie.engines.llama_worker",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    return process.returncode, out, err


async def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model" * 100)
    request = worker_request(spec(path=str(tmp_path / "x.gguf")), str(tmp_path), "key")
    status, out, err = await run(json.dumps(request).encode() + b"\n")
    assert (status, out) == (1, b'{"ready": false}\n')
    assert err


async def test_a_parent_that_is_gone_before_it_said_anything() -> None:
    status, out, _ = await run(b"")
    assert (status, out) == (1, b"")


async def test_the_end_of_its_input_is_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    request = worker_request(spec(), str(folder), "key")
    status, out, _ = await run(json.dumps(request).encode() + b"\n")
    assert (status, out) == (0, b'{"ready": true}\n')
    assert not folder.exists()


ENGINE_THAT_TELLS_OF_ITS_END = """
from types import SimpleNamespace

def CommonParams():
    return SimpleNamespace(model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace())

class Server:
    def __init__(self, params):
        pass

    def __del__(self):
        print("destroyed", flush=True)
"""


async def test_the_engine_is_never_destroyed_for_that_can_wait_for_ever(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text(ENGINE_THAT_TELLS_OF_ITS_END)
    request = worker_request(spec(), str(tmp_path / "f"), "key")
    status, out, err = await run(json.dumps(request).encode() + b"\n", PYTHONPATH=str(tmp_path))
    assert (status, out, err) == (0, b'{"ready": true}\n', b"")

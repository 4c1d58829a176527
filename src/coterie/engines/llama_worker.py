"""The child process that runs llama.cpp: ``python -m coterie.engines.llama_worker``.

llama.cpp ends its process when an assertion fails, takes over SIGINT and SIGTERM, and gives memory back to the
allocator rather than to the system; so it gets a process of its own. A crash is then a failure of the requests that
were running, and unloading a model frees all that it took.

The protocol with the parent, over the standard streams:

* the parent writes one JSON line with the parameters (they hold the key, which therefore stands in no argument list
  and no environment);
* the child answers with one JSON line, ``{"ready": true}`` or ``{"ready": false}``, once the model is loaded;
* the child lives until its standard input ends, so it never outlives its parent, however that dies; it then removes
  the folder of its socket, which nobody else is left to do.

Requests do not pass through Python here: the HTTP server inside ``xllamacpp`` listens on a Unix socket in a folder that
only the owner can enter, behind a random key. (Left alone it would listen on a TCP port, open to every local user.)
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, NoReturn


def main() -> None:
    """Load, say so, and stay until the parent is gone."""
    request = json.loads(sys.stdin.readline())
    reply = _take_over_stdout()
    import xllamacpp

    try:
        server = xllamacpp.Server(engine_params(xllamacpp, request))
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        _say(reply, ready=False)
        os._exit(1)
    _say(reply, ready=True)
    _serve_until_the_parent_is_gone(server, request["socket"])


def _serve_until_the_parent_is_gone(server: object, socket: str) -> NoReturn:
    """Hold ``server``, for it works as long as something refers to it, and end the process while it still does.

    Its destructor must never run: it waits for the engine's thread, which never ends when it was told to stop just
    before it began to listen for that. The system frees everything anyway.
    """
    while sys.stdin.read(4096):
        pass
    _remove(socket)
    os._exit(0)


def _remove(socket: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(socket)
        os.rmdir(os.path.dirname(socket))


def _take_over_stdout() -> int:
    """Keep the reply channel to ourselves: what the library prints goes to standard error."""
    reply = os.dup(1)
    os.dup2(2, 1)
    return reply


def _say(reply: int, *, ready: bool) -> None:
    os.write(reply, json.dumps({"ready": ready}).encode() + b"\n")


def engine_params(xllamacpp: Any, request: dict[str, Any]) -> Any:
    """llama.cpp's parameters for what the parent asked for."""
    params = xllamacpp.CommonParams()
    params.model.path = request["path"]
    params.model_alias = {request["model"]}
    params.hostnames = [request["socket"]]
    params.api_keys = [request["key"]]
    params.ui = False
    params.endpoint_slots = True
    params.use_jinja = True
    params.verbosity = 1
    params.cache_ram_mib = 0  # else up to 8 GiB of old prompts are kept beside the slots
    params.n_parallel = request["slots"]
    params.n_threads_http = request["slots"] + 4
    params.n_ctx = request["context_tokens"] * request["slots"]
    params.n_batch = params.n_ubatch = request["batch_tokens"]
    params.n_gpu_layers = request["gpu_layers"]
    if request["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request["threads"]
    if request["chat_template"] is not None:
        params.chat_template = request["chat_template"]
    if request["task"] == "embed":
        params.embedding = True
        if request["pooling"] == "mean":
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


if __name__ == "__main__":
    main()

"""llama.cpp's own HTTP server as it comes, on a TCP port: ``python -m bench.llama_server MODEL_FILE NAME PORT``.

It has the context, the slots and the threads that the embedded engine gets in :mod:`bench.conformance`. The key is
taken from the environment, so that it stands in no argument list.
"""

from __future__ import annotations

import os
import sys
import threading

import xllamacpp

from coterie.engines.llama_worker import engine_params

KEY_VARIABLE = "CONFORMANCE_KEY"
SLOTS = 4
CONTEXT_TOKENS = 2048
THREADS = 1


def main() -> None:
    path, name, port = sys.argv[1:]
    params = engine_params(xllamacpp, {
        "path": path, "model": name, "socket": "127.0.0.1", "key": os.environ[KEY_VARIABLE], "slots": SLOTS,
        "context_tokens": CONTEXT_TOKENS, "batch_tokens": 512, "gpu_layers": 0, "threads": THREADS,
        "chat_template": None, "task": "generate", "pooling": None,
    })  # fmt: skip
    params.port = int(port)
    server = xllamacpp.Server(params)  # it listens for as long as something refers to it
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main()

"""SIGHUP on a real server, while a stream runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.behind import WHOLE
from tests.support.server import RawStream, eventually, serving

from coterie.testbed.upstream import FaultyUpstream

CHAT = "/v1/chat/completions"


def _config(*providers: tuple[str, str]) -> str:
    return "".join(
        f'[[providers]]\nname = "{name}"\nbase_url = "{url}"\nmodels = ["{name}-model"]\n' for name, url in providers
    )


def _served(answer: object) -> list[str]:
    assert isinstance(answer, dict)
    return [card["id"] for card in answer["data"]]


def _says(words: str, times: int) -> Callable[[str], bool]:
    return lambda log: log.count(words) == times


def test_providers_change_under_a_running_stream(tmp_path: Path) -> None:
    with (
        FaultyUpstream(models={"old-model": "ok:rate=100"}) as old,
        FaultyUpstream(models={"new-model": "ok"}) as new,
        serving(tmp_path, _config(("old", old.base_url))) as server,
        RawStream(server, CHAT, {"model": "old-model", "messages": [{"role": "user", "content": "x"}]}) as stream,
    ):
        stream.events(1)
        (tmp_path / "coterie-test.toml").write_text(_config(("new", new.base_url)))
        server.signal(signal.SIGHUP)
        eventually(lambda: _served(server.ask("GET", "/v1/models").json), lambda names: names == ["new-model"])

        body = {"model": "new-model", "messages": [{"role": "user", "content": "x"}]}
        assert server.ask("POST", CHAT, body).json["choices"][0]["message"]["content"] == WHOLE
        assert server.ask("POST", CHAT, {**body, "model": "old-model"}).status == 404
        assert b' w59"' in stream.rest()
        assert stream.body.endswith(b"data: [DONE]\n\n")

        for place, bad in enumerate(("providers = 3", _config(("new", new.base_url)) + 'ca_file = "/nowhere.pem"'), 1):
            (tmp_path / "coterie-test.toml").write_text(bad)
            server.signal(signal.SIGHUP)
            eventually(lambda: server.log, _says("was not read again", place))
            assert server.ask("POST", CHAT, body).status == 200
        (tmp_path / "coterie-test.toml").write_text(_config(("old", old.base_url)))
        server.signal(signal.SIGHUP)
        eventually(lambda: _served(server.ask("GET", "/v1/models").json), lambda names: names == ["old-model"])

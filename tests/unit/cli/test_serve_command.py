from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.gguf import write_gguf

from coterie.api import server
from coterie.api.state import AppState
from coterie.cli import serve as command
from coterie.cli.state_lock import RunningServer, StateLock, running_server
from coterie.config import DEFAULT_MODEL, Settings
from coterie.models import catalogue, pull
from coterie.observe import log
from coterie.storage import StorageError

Coterie = Callable[..., Any]


class Served:
    """Stands in for the serving itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.states: list[AppState] = []
        self.running: RunningServer | None = None

    def run(
        self, state: AppState, listener: socket.socket, on_ready: Callable[[], None], load: Callable[[], Settings]
    ) -> None:
        with closing(listener):
            self.states.append(state)
            self.running = running_server(self._folder)
            on_ready()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    stand_in = Served(tmp_path / "state")
    monkeypatch.setattr(server, "run", stand_in.run)
    monkeypatch.setattr(log, "configure", lambda level: None)
    return stand_in


@pytest.fixture
def model(tmp_path: Path) -> str:
    return f"little={write_gguf(tmp_path / 'little.gguf')}"


@pytest.fixture
def held_port() -> Iterator[int]:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_flags_become_settings(coterie: Coterie, served: Served, model: str, tmp_path: Path) -> None:
    ran = coterie(
        "serve", "--model", model, "--port", "0", "--host", "127.0.0.1", "--api-key", "first-key", "--api-key",
        "second-key", "--slots", "2", "--context-tokens", "512", "--preload", "--log-level", "warning",
        "--state-dir", str(tmp_path / "state"),
    )  # fmt: skip
    assert ran.status == 0, ran.err
    (settings,) = (state.settings for state in served.states)
    assert settings.server.api_keys == ("first-key", "second-key")
    assert settings.log_level == "warning"
    (engine,) = (model.engine for model in settings.models)
    assert (engine.slots, engine.context_tokens, engine.preload) == (2, 512, True)


def test_the_greeting_has_a_request_that_can_be_pasted(coterie: Coterie, served: Served, model: str) -> None:
    ran = coterie("serve", "--model", model, "--port", "0")
    assert served.running is not None
    url = served.running.url
    assert f"Coterie serves little at {url}/v1" in ran.out
    assert "none needed" in ran.out
    assert f"curl {url}/v1/chat/completions" in ran.out
    (body,) = (line for line in ran.out.splitlines() if line.startswith("  -d "))
    assert json.loads(body.removeprefix("  -d '").removesuffix("'"))["model"] == "little"
    assert "WARNING" not in ran.out


def test_the_greeting_has_the_key(coterie: Coterie, served: Served, model: str) -> None:
    ran = coterie("serve", "--model", model, "--port", "0", "--api-key", "first-key", "--host", "0.0.0.0")
    assert "API key: first-key" in ran.out
    assert "-H 'Authorization: Bearer first-key'" in ran.out
    assert "at http://127.0.0.1:" in ran.out
    assert "WARNING" not in ran.out


def test_an_open_server_is_warned_of(coterie: Coterie, served: Served, model: str) -> None:
    assert "WARNING: everybody" in coterie("serve", "--model", model, "--port", "0", "--host", "0.0.0.0").out


def test_the_state_folder_knows_the_server_while_it_runs(
    coterie: Coterie, served: Served, model: str, tmp_path: Path
) -> None:
    coterie("serve", "--model", model, "--port", "0")
    assert served.running is not None
    assert running_server(tmp_path / "state") is None


def test_a_second_server_is_refused(coterie: Coterie, served: Served, model: str, tmp_path: Path) -> None:
    with StateLock(tmp_path / "state") as lock:
        lock.tell("http://127.0.0.1:1234")
        ran = coterie("serve", "--model", model, "--port", "0")
    assert (ran.status, ran.out, served.states) == (1, "", [])
    assert "another server already runs" in ran.err
    assert "http://127.0.0.1:1234" in ran.err
    assert "--state-dir" in ran.err


def test_a_taken_port_is_refused(coterie: Coterie, served: Served, model: str, held_port: int) -> None:
    ran = coterie("serve", "--model", model, "--port", str(held_port))
    assert (ran.status, ran.out, served.states) == (1, "", [])
    assert f"127.0.0.1:{held_port}" in ran.err
    assert "--port" in ran.err


def test_an_address_of_another_machine_is_refused(coterie: Coterie, served: Served, model: str) -> None:
    ran = coterie("serve", "--model", model, "--port", "0", "--host", "192.0.2.1")
    assert (ran.status, served.states) == (1, [])
    assert "cannot listen on 192.0.2.1:0" in ran.err
    assert "Traceback" not in ran.err


def test_an_unknown_model_is_refused(coterie: Coterie, served: Served) -> None:
    ran = coterie("serve", "--model", "nothing", "--port", "0")
    assert (ran.status, served.states) == (1, [])
    assert "error: model nothing: 'nothing' is not in the catalogue" in ran.err


@pytest.mark.parametrize("text", ["little=none.gguf", "little=text.gguf"])
def test_a_file_that_is_no_model_is_refused(coterie: Coterie, served: Served, tmp_path: Path, text: str) -> None:
    (tmp_path / "text.gguf").write_text("text")
    ran = coterie("serve", "--model", text, "--port", "0")
    assert (ran.status, served.states) == (1, [])
    assert text.removeprefix("little=") in ran.err


def test_a_wrong_flag_is_refused(coterie: Coterie, served: Served, model: str) -> None:
    ran = coterie("serve", "--model", model, "--port", "70000")
    assert (ran.status, served.states) == (1, [])
    assert "flag --port" in ran.err


def test_without_a_model_the_default_one_is_pulled(
    coterie: Coterie, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled: list[str] = []

    def refuse(model: catalogue.CatalogModel, *_: object) -> None:
        pulled.append(model.name)
        raise SystemExit(9)

    monkeypatch.setattr(pull, "pull", refuse)
    assert coterie("serve", "--port", "0", "--slots", "3").status == 9
    assert pulled == [DEFAULT_MODEL]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 1), "http://127.0.0.1:1"),
        (("0.0.0.0", 1), "http://127.0.0.1:1"),
        (("::", 1, 0, 0), "http://127.0.0.1:1"),
        (("::1", 1, 0, 0), "http://[::1]:1"),
    ],
)
def test_the_address_that_is_told(address: tuple[Any, ...], url: str) -> None:
    class Listener:
        def getsockname(self) -> tuple[Any, ...]:
            return address

    listener: Any = Listener()
    assert command._url(Settings(), listener) == url


@pytest.mark.parametrize(
    ("models", "said"),
    [('["a", {name = "b", upstream = "org/b"}]', "Coterie serves a, b at"), ("[]", "Coterie serves what far lists at")],
)
def test_a_server_of_other_servers_models_alone(
    coterie: Coterie, served: Served, tmp_path: Path, models: str, said: str
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'[[providers]]\nname = "far"\nbase_url = "http://127.0.0.1:9/v1"\nmodels = {models}\n')
    ran = coterie("serve", "--config", str(file), "--port", "0")
    assert said in ran.out
    (state,) = served.states
    assert [provider.name for provider in state.router.providers] == ["far"]


def test_a_key_that_is_not_set(coterie: Coterie, served: Served, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[[providers]]\nname = "far"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "NOBODY_SET_THIS"\n'
    )
    ran = coterie("serve", "--config", str(file), "--port", "0")
    assert ran.status == 1
    assert "provider far: api_key_env: the environment variable NOBODY_SET_THIS is not set" in ran.err
    assert not served.states


def test_a_state_folder_that_cannot_be_made_is_refused(
    coterie: Coterie, served: Served, model: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    ran = coterie("serve", "--model", model, "--port", "0", "--state-dir", str(tmp_path / "file" / "state"))
    assert (ran.status, ran.out, served.states) == (1, "", [])
    assert f"the state folder {tmp_path / 'file' / 'state'} cannot be used: Not a directory" in ran.err
    assert "--state-dir" in ran.err
    assert "Traceback" not in ran.err


def test_a_storage_that_cannot_be_opened_is_refused(
    coterie: Coterie, served: Served, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("The key is none.")

    monkeypatch.setattr(server, "run", fail)
    ran = coterie("serve", "--model", model, "--port", "0")
    assert (ran.status, ran.out) == (1, "")
    assert "error: The key is none.\n  See 'storage.url' and 'state_dir'" in ran.err
    assert "Traceback" not in ran.err

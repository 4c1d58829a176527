from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.canned import CannedServer, answer, error_answer
from tests.support.gguf import KV_BYTES_PER_TOKEN, TRAINED_TOKENS, write_gguf

from coterie.cli import doctor, machine
from coterie.cli.doctor import CHECKS, Check, Examination, Finding
from coterie.cli.machine import Device, EngineFacts, Machine
from coterie.cli.state_lock import StateLock
from coterie.config import ConfigError, ProviderSettings, Settings
from coterie.errors import ApiError
from coterie.models.catalogue import CATALOG, CatalogModel, HuggingFace
from coterie.models.store import InstalledModel, ModelStore
from coterie.storage.database import StorageError
from coterie.testbed.upstream import FaultyUpstream

Coterie = Callable[..., Any]

CPU = Device("CPU", "A processor", False, 10**9)
GPU = Device("CUDA0", "A card", True, 10**9)


class StagedMachine(Machine):
    """A machine that is as a test says."""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts

    def python_version(self) -> tuple[int, int, int]:
        version: tuple[int, int, int] = self.facts.get("python", (3, 12, 1))
        return version

    def engine(self) -> EngineFacts:
        facts: EngineFacts = self.facts.get("engine", EngineFacts("1.0", (CPU,)))
        return facts

    def available_memory_bytes(self) -> int | None:
        memory: int | None = self.facts.get("memory", 10**12)
        return memory

    def models_listed_by(self, provider: ProviderSettings) -> set[str]:
        listed: set[str] | Exception = self.facts["listed"]
        if isinstance(listed, Exception):
            raise listed
        return listed

    def storage_at(self, url: str) -> str:
        found: str | Exception = self.facts.get("storage", "SQLite of version 1")
        if isinstance(found, Exception):
            raise found
        return found

    def free_disk_bytes(self, folder: Path) -> int:
        free: int = self.facts.get("disk", 10**12)
        return free

    def try_to_write(self, folder: Path) -> None:
        if "unwritable" in self.facts:
            raise PermissionError(13, "Permission denied")


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., Examination]:
    def make(settings: dict[str, Any] | None = None, *, quick: bool = False, **facts: Any) -> Examination:
        whole = Settings.model_validate({"state_dir": tmp_path / "state", **(settings or {})})
        return Examination(whole, quick=quick, machine=StagedMachine(**facts))

    return make


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "little.gguf")


@pytest.fixture
def held_port() -> Iterator[int]:
    with closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def only(check: Check, examination: Examination) -> Finding:
    (finding,) = check(examination)
    return finding


def level(check: Check, examination: Examination) -> str:
    finding = only(check, examination)
    assert (finding.level == "PASS") == (finding.remedy == "")
    return finding.level


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of one model, "little", which is installed; returns its file."""
    content = write_gguf(tmp_path / "made.gguf").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    model = CatalogModel("little", "", "MIT", len(content), 512, sha256, "l.gguf", HuggingFace("o/r", "0", "l.gguf"))
    monkeypatch.setattr(doctor, "CATALOG", {model.name: model})
    store = ModelStore(tmp_path / "state" / "models")
    with store.lock("little"):
        made = store.workspace("little") / "l.gguf"
        made.write_bytes(content)
        store.install(InstalledModel("little", "l.gguf", sha256, len(content), "a test", "2026-01-01"), made)
    return store.path_of("little")


@pytest.mark.parametrize(("version", "expected"), [((3, 10, 9), "FAIL"), ((3, 11, 0), "PASS"), ((4, 0, 0), "PASS")])
def test_python(examine: Callable[..., Examination], version: tuple[int, int, int], expected: str) -> None:
    assert level(doctor.check_python, examine(python=version)) == expected


def test_engine(examine: Callable[..., Examination]) -> None:
    good = only(doctor.check_engine, examine(engine=EngineFacts("2.0", (CPU, GPU))))
    assert (good.level, good.text) == ("PASS", "xllamacpp 2.0 on CPU (A processor), CUDA0 (A card)")
    bad = only(doctor.check_engine, examine(engine=EngineFacts(problem="it crashed (SIGILL)")))
    assert bad.level == "FAIL"
    assert "it crashed (SIGILL)" in bad.text


def test_configuration(examine: Callable[..., Examination]) -> None:
    assert level(doctor.check_configuration, examine()) == "PASS"
    broken = Examination(None, ("a: wrong", "b: wrong"), machine=StagedMachine())
    found = list(doctor.check_configuration(broken))
    assert [(finding.level, finding.text) for finding in found] == [("FAIL", "a: wrong"), ("FAIL", "b: wrong")]


def test_without_settings_the_machine_is_still_checked() -> None:
    found = list(doctor.findings(Examination(None, ("a: wrong",), machine=StagedMachine())))
    assert [finding.check for finding in found] == ["python", "engine", "configuration"]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [({}, "PASS"), ({"unwritable": True}, "FAIL"), ({"disk": 10**6}, "FAIL"), ({"disk": 5 * 10**8}, "WARN")],
)
def test_state_folder(examine: Callable[..., Examination], facts: dict[str, Any], expected: str) -> None:
    assert level(doctor.check_state_folder, examine(**facts)) == expected


def test_state_folder_needs_room_only_for_what_is_to_come(examine: Callable[..., Examination], gguf: Path) -> None:
    assert level(doctor.check_state_folder, examine({"models": [{"name": "a", "path": gguf}]}, disk=10**6)) == "WARN"


def test_a_file_that_is_a_model(examine: Callable[..., Examination], gguf: Path) -> None:
    found = only(doctor.check_models, examine({"models": [{"name": "a", "path": gguf}]}))
    assert (found.check, found.level) == ("model a", "PASS")
    assert "as it was pulled" not in found.text


def test_files_that_are_none(examine: Callable[..., Examination], tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("text")
    models = [
        {"name": "a", "path": tmp_path / "none.gguf"},
        {"name": "b", "path": tmp_path / "text.gguf"},
        {"name": "c"},
        {"name": "d", "catalog": "none"},
    ]
    found = list(doctor.check_models(examine({"models": models})))
    assert [(finding.check, finding.level) for finding in found] == [(f"model {name}", "FAIL") for name in "abcd"]
    assert all(finding.remedy for finding in found)


def test_a_chat_template_that_is_not_there(examine: Callable[..., Examination], gguf: Path) -> None:
    model = {"name": "a", "path": gguf, "chat_template": gguf.parent / "none.jinja"}
    found = only(doctor.check_models, examine({"models": [model]}))
    assert found.level == "FAIL"
    assert "none.jinja" in found.text


def test_a_model_of_the_catalogue_that_is_to_be_pulled(examine: Callable[..., Examination]) -> None:
    assert level(doctor.check_models, examine()) == "WARN"
    assert level(doctor.check_models, examine({"models": [{"name": "a", "catalog": next(iter(CATALOG))}]})) == "WARN"


def test_a_pulled_model_is_read_unless_quick(
    examine: Callable[..., Examination], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = install(tmp_path, monkeypatch)
    settings = {"models": [{"name": "little"}]}
    assert "every byte" in only(doctor.check_models, examine(settings)).text
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    assert level(doctor.check_models, examine(settings)) == "FAIL"
    assert level(doctor.check_models, examine(settings, quick=True)) == "PASS"


def test_memory(examine: Callable[..., Examination], gguf: Path) -> None:
    model = {"name": "a", "path": gguf, "engine": {"slots": 2, "context_tokens": 1000}}
    needed = gguf.stat().st_size + 2 * 1000 * KV_BYTES_PER_TOKEN
    settings = {"models": [model]}
    assert level(doctor.check_memory, examine(settings, memory=needed)) == "PASS"
    assert level(doctor.check_memory, examine(settings, memory=needed - 1)) == "FAIL"
    assert list(doctor.check_memory(examine(settings, memory=None))) == []


def test_memory_is_for_no_more_context_than_the_model_has(examine: Callable[..., Examination], gguf: Path) -> None:
    model = {"name": "a", "path": gguf, "engine": {"slots": 1, "context_tokens": 10**6}}
    needed = gguf.stat().st_size + TRAINED_TOKENS * KV_BYTES_PER_TOKEN
    assert level(doctor.check_memory, examine({"models": [model]}, memory=needed)) == "PASS"


def test_memory_of_a_gpu(examine: Callable[..., Examination], gguf: Path) -> None:
    small = EngineFacts("1.0", (CPU, Device("CUDA0", "", True, 1)))
    model = {"name": "a", "path": gguf}
    found = only(doctor.check_memory, examine({"models": [model]}, engine=small))
    assert found.level == "WARN"
    assert "on GPUs" in found.text
    on_cpu = {**model, "engine": {"gpu_layers": 0}}
    assert level(doctor.check_memory, examine({"models": [on_cpu]}, engine=small)) == "PASS"


def test_memory_beside_a_running_server_is_a_warning(
    examine: Callable[..., Examination], gguf: Path, tmp_path: Path
) -> None:
    with StateLock(tmp_path / "state") as lock:
        lock.tell("http://127.0.0.1:1")
        assert level(doctor.check_memory, examine({"models": [{"name": "a", "path": gguf}]}, memory=1)) == "WARN"


def test_memory_of_models_that_are_not_there_is_not_told(examine: Callable[..., Examination]) -> None:
    assert list(doctor.check_memory(examine())) == []


def test_a_free_port(examine: Callable[..., Examination]) -> None:
    assert level(doctor.check_port, examine({"server": {"port": 0}})) == "PASS"


def test_a_taken_port(examine: Callable[..., Examination], held_port: int, tmp_path: Path) -> None:
    settings = {"server": {"port": held_port}}
    assert level(doctor.check_port, examine(settings)) == "FAIL"
    with StateLock(tmp_path / "state") as lock:
        lock.tell(f"http://127.0.0.1:{held_port}")
        assert level(doctor.check_port, examine(settings)) == "PASS"
        lock.tell(f"http://127.0.0.1:1{held_port}")
        assert level(doctor.check_port, examine(settings)) == "FAIL"


def test_an_address_of_another_machine(examine: Callable[..., Examination]) -> None:
    found = only(doctor.check_port, examine({"server": {"host": "192.0.2.1", "port": 0}}))
    assert found.level == "FAIL"
    assert "cannot be listened on" in found.text


def test_no_server_is_nothing_to_tell(examine: Callable[..., Examination]) -> None:
    assert list(doctor.check_server(examine())) == []


@pytest.mark.parametrize(
    ("changes", "expected", "text"),
    [
        ({}, "PASS", "is ready"),
        ({"/ready": error_answer(503, "not_ready", "Not ready.")}, "FAIL", "Not ready."),
        ({"/health": b""}, "FAIL", "broke"),
        ({"/status": error_answer(401, "invalid_api_key", "Wrong key.")}, "FAIL", "Wrong key."),
        ({"/status": answer({"engines": [{"model": "m", "state": "failed"}]})}, "FAIL", "could not load m"),
    ],
)
def test_the_running_server(
    examine: Callable[..., Examination], tmp_path: Path, changes: dict[str, bytes], expected: str, text: str
) -> None:
    well = {"/health": answer({}), "/ready": answer({}), "/status": answer({"engines": [{"state": "ready"}]})}
    with CannedServer({**well, **changes}) as canned, StateLock(tmp_path / "state") as lock:
        lock.tell(canned.url)
        examination = examine()
        assert level(doctor.check_server, examination) == expected
        assert text in only(doctor.check_server, examination).text


def test_every_check_is_listed_once() -> None:
    made = {value for name, value in vars(doctor).items() if name.startswith("check_")}
    assert made == set(CHECKS)
    assert len(CHECKS) == len(made)


def test_the_command(
    coterie: Coterie, monkeypatch: pytest.MonkeyPatch, gguf: Path, held_port: int, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "Machine", StagedMachine)
    monkeypatch.setenv("COTERIE_MODELS", f'[{{name = "a", path = "{gguf}"}}]')
    monkeypatch.setenv("COTERIE_SERVER__PORT", "0")
    ran = coterie("doctor")
    assert ran.status == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == ["[PASS]"] * 8
    monkeypatch.setenv("COTERIE_SERVER__PORT", str(held_port))
    ran = coterie("doctor", "--quick")
    assert ran.status == 1
    assert ran.out.splitlines()[-2].startswith("[FAIL] port: ")
    assert ran.out.splitlines()[-1] == "       Stop it, or set another 'server.port'."


def test_the_command_as_json(coterie: Coterie, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "Machine", StagedMachine)
    monkeypatch.setenv("COTERIE_SERVER__PORT", "many")
    ran = coterie("doctor", "--json")
    assert ran.status == 1
    found = json.loads(ran.out)
    assert [finding["level"] for finding in found] == ["PASS", "PASS", "FAIL"]
    assert "COTERIE_SERVER__PORT" in found[2]["text"]


def test_the_engine_is_asked_in_a_process_of_its_own() -> None:
    before = "xllamacpp" in sys.modules  # another test may have imported it
    facts = Machine().engine()
    assert facts.problem is None
    assert facts.version
    assert any(not device.gpu for device in facts.devices)
    assert ("xllamacpp" in sys.modules) is before


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import os; os.abort()", "it crashed (SIGABRT)"),
        ("raise ImportError('no wheel')", "ImportError: no wheel"),
        ("raise SystemExit(3)", "exit status 3"),
    ],
)
def test_an_engine_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch, program: str, problem: str) -> None:
    monkeypatch.setattr(machine, "_ASK_ENGINE", program)
    assert Machine().engine().problem == problem


def test_an_engine_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, timeout: float, **__: object) -> None:
        raise subprocess.TimeoutExpired("engine", timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "did not answer" in str(Machine().engine().problem)


def test_this_machine(tmp_path: Path) -> None:
    this = Machine()
    assert this.python_version() == sys.version_info[:3]
    assert (this.available_memory_bytes() or 0) > 10**6
    assert this.free_disk_bytes(tmp_path / "a" / "b") > 0
    this.try_to_write(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Machine().try_to_write(tmp_path / "file" / "folder")


@pytest.mark.parametrize(
    ("text", "expected"), [("MemTotal: 9 kB\nMemAvailable:    2 kB\n", 2048), ("MemTotal: 9 kB\n", None), ("", None)]
)
def test_meminfo(text: str, expected: int | None) -> None:
    assert machine.available_of_meminfo(text) == expected


@pytest.mark.parametrize(
    ("limit", "current", "stat", "expected"),
    [
        ("1000\n", "700\n", "anon 5\ninactive_file 200\n", 500),
        ("1000\n", "1100\n", "", 0),
        ("max\n", "700\n", "", None),
        ("", "", "", None),
    ],
)
def test_the_limit_of_a_container(limit: str, current: str, stat: str, expected: int | None) -> None:
    assert machine.left_of_cgroup(limit, current, stat) == expected


FAR = {"name": "far", "base_url": "http://127.0.0.1:9/v1"}


@pytest.mark.parametrize(
    ("models", "listed", "level", "text"),
    [
        ([], {"a", "b"}, "PASS", "answers; 2 models"),
        (["a"], {"a", "b"}, "PASS", "answers; 1 model"),
        ([{"name": "x", "upstream": "c"}], {"a"}, "WARN", "it does not list c"),
        ([], ApiError("upstream_unreachable"), "FAIL", "could not be reached"),
        (["a"], ApiError("upstream_unreachable"), "WARN", "could not be reached"),
        (["a"], ConfigError(["KEY is not set"]), "FAIL", "KEY is not set"),
    ],
)
def test_a_provider(
    examine: Callable[..., Examination], models: list[Any], listed: object, level: str, text: str
) -> None:
    finding = only(doctor.check_providers, examine({"providers": [{**FAR, "models": models}]}, listed=listed))
    assert (finding.check, finding.level) == ("provider far", level)
    assert text in finding.text
    assert bool(finding.remedy) == (level != "PASS")


def test_a_server_of_other_servers_models_needs_no_model_of_its_own(examine: Callable[..., Examination]) -> None:
    assert examine({"providers": [FAR]}).models == ()


def test_a_provider_is_really_asked() -> None:
    with FaultyUpstream(models={"m": "ok"}) as upstream:
        settings = ProviderSettings(name="far", base_url=upstream.base_url)
        assert "m" in Machine().models_listed_by(settings)


def test_storage(examine: Callable[..., Examination]) -> None:
    [found] = doctor.check_storage(examine(storage="PostgreSQL of version 1"))
    assert (found.level, found.text) == ("PASS", "PostgreSQL of version 1")
    [found] = doctor.check_storage(examine(storage=StorageError("The database is away.")))
    assert (found.level, found.text) == ("FAIL", "The database is away.")
    assert found.remedy


def test_storage_is_looked_at_and_not_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    assert "first start" in Machine().storage_at(url)
    assert not (tmp_path / "x.db").exists()

from __future__ import annotations

import json
from typing import Any

import pytest

from coterie.testbed.faults import FAULTS
from coterie.testbed.log import MAX_BODY_BYTES, RequestLog
from coterie.testbed.site import MAX_NAMES, Request, Settings, Site

CHAT = "/v1/chat/completions"


def made(**settings: Any) -> Site:
    return Site(Settings(**settings), RequestLog())


def ask(site: Site, body: Any, path: str = CHAT, method: str = "POST", **headers: str) -> tuple[int, Any]:
    """Status and JSON of a plain answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    steps = site.reply(Request(method, path, headers, data, True)).steps
    answer = b"".join(step for step in steps if isinstance(step, bytes))
    head, _, text = answer.partition(b"\r\n\r\n")
    return int(head[9:12]), json.loads(text)


def chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}


def test_the_models() -> None:
    site = made(models={"llama": "cut@4"})
    _, listed = ask(site, b"", "/v1/models", "GET")
    assert [model["id"] for model in listed["data"]] == ["llama", *FAULTS]
    assert ask(site, b"", "/v1/models/llama", "GET")[1]["id"] == "llama"
    assert ask(site, b"", "/v1/models/cut@40:tokens=60", "GET")[0] == 200
    assert ask(site, b"", "/v1/models/gpt-4o", "GET")[0] == 404


def test_a_name_of_its_own_has_the_fault_behind_it() -> None:
    site = made(models={"llama": "unavailable"})
    assert ask(site, chat("llama"))[0] == 503
    site.settings.models["llama"] = "ok"
    status, body = ask(site, chat("llama"))
    assert (status, body["model"]) == (200, "llama")
    assert [(entry.model, entry.fault) for entry in site.log.entries] == [("llama", "unavailable"), ("llama", "ok")]


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        (CHAT, chat("gpt-4o"), 404, None, "model_not_found"),
        (CHAT, chat("cut@x"), 400, "model", None),
        (CHAT, {"model": "ok"}, 400, "messages", None),
        (CHAT, {"messages": []}, 400, None, None),
        (CHAT, b"{", 400, None, None),
        (CHAT, [], 400, None, None),
        ("/v1/completions", {"model": "ok"}, 400, "prompt", None),
        ("/v1/embeddings", {"model": "ok"}, 400, "input", None),
        ("/v1/responses", chat("ok"), 404, None, None),
        ("/testbed/else", b"", 404, None, None),
    ],
)
def test_mistakes_have_openai_s_body(path: str, body: Any, status: int, param: str | None, code: str | None) -> None:
    got, told = ask(made(), body, path)
    error = told["error"]
    assert (got, error["param"], error["code"], error["type"]) == (status, param, code, "invalid_request_error")
    assert error["message"]


def test_one_key_is_accepted() -> None:
    site = made(api_key="right")
    assert ask(site, chat("ok"))[0] == 401
    assert ask(site, chat("ok"), authorization="Bearer wrong")[0] == 401
    assert ask(site, chat("ok"), authorization="Bearer right")[0] == 200
    assert "right" not in str(site.log.entries)


def test_the_first_of_each_name_fails() -> None:
    site = made()
    models = ["error-once", "error-once", "error-once:id=b", "error-once", "error-once:id=b"]
    assert [ask(site, chat(model))[0] for model in models] == [500, 200, 500, 200, 200]
    site.forget()
    assert ask(site, chat("error-once"))[0] == 500


@pytest.mark.parametrize(
    ("model", "good"),
    [("flap@3", "110110"), ("flap@1", "000000"), ("flap:run=2", "001100"), ("flap", "101010"), ("flap@0", "000000")],
)
def test_flapping(model: str, good: str) -> None:
    site = made()
    assert "".join("1" if ask(site, chat(model))[0] == 200 else "0" for _ in good) == good


def test_the_names_that_are_counted_are_bounded() -> None:
    site = made()
    for number in range(MAX_NAMES + 1):
        site._count(f"error-once:id={number}")
    assert len(site._asked) == MAX_NAMES


def test_the_server_s_settings_and_the_name_s() -> None:
    site = made(tokens=3, seed=2, marker="zq7")
    assert ask(site, chat("ok"))[1]["choices"][0]["message"]["content"] == " w2.0 w2.1 w2.2"
    assert ask(site, chat("ok:tokens=1:seed=5"))[1]["choices"][0]["message"]["content"] == " w5.0"
    assert "sk-zq7" in str(ask(site, chat("unavailable"))[1])
    assert "sk-own" in str(ask(site, chat("unavailable:marker=own"))[1])


def test_completions_and_embeddings_have_faults_too() -> None:
    site = made()
    assert ask(site, {"model": "ok:tokens=2", "prompt": "a b"}, "/v1/completions")[1]["choices"][0]["text"] == " w0 w1"
    assert ask(site, {"model": "ok", "input": "a b"}, "/v1/embeddings")[1]["usage"]["prompt_tokens"] == 2
    assert ask(site, {"model": "unavailable", "prompt": "a"}, "/v1/completions")[0] == 503
    assert ask(site, {"model": "unavailable", "input": "a"}, "/v1/embeddings")[0] == 503
    assert ask(site, {"model": "cut@1", "input": "a"}, "/v1/embeddings")[0] == 200


def test_what_the_log_tells() -> None:
    site = made()
    answer = {"role": "assistant", "content": " w0 w1", "prefix": True}
    ask(site, chat("ok", messages=[answer], max_tokens=4))
    ask(site, chat("ok"))
    ask(site, chat("ok", messages=[{"role": "assistant", "content": "No"}]))
    ask(site, chat("ok", pad="x" * MAX_BODY_BYTES))
    first, second, third, last = site.log.entries
    assert (first.asked_to_continue, first.continue_flag, first.continued_from, first.tokens_sent) == (True, True, 2, 4)
    assert (second.asked_to_continue, second.continue_flag, second.continued_from) == (False, False, None)
    assert (third.asked_to_continue, third.continue_flag, third.continued_from) == (True, False, None)
    assert first.body["messages"] == [answer]
    assert (last.body, last.model) == (None, "ok")
    assert last.body_bytes > MAX_BODY_BYTES
    assert [entry.number for entry in site.log.entries] == [1, 2, 3, 4]


def test_the_log_over_http() -> None:
    site = made()
    ask(site, chat("ok"))
    ask(site, chat("error-once"))
    ask(site, b"", "/testbed/redirected", "GET")
    shown = ask(site, b"", "/testbed/log", "GET")[1]["entries"]
    assert [entry["path"] for entry in shown] == [CHAT, CHAT, "/testbed/redirected"]
    assert ask(site, b"", "/testbed/log", "DELETE")[1] == {"cleared": 3}
    assert ask(site, b"", "/testbed/log", "GET")[1] == {"entries": []}
    assert ask(site, chat("error-once"))[0] == 500


def test_the_faults_over_http() -> None:
    shown = ask(made(), b"", "/testbed/faults", "GET")[1]
    assert [fault["name"] for fault in shown["faults"]] == list(FAULTS)
    assert all(fault["summary"] and fault["alone"] and fault["with_second"] for fault in shown["faults"])
    assert "tokens" in shown["options"]

"""The description of the API agrees with the API."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from starlette.routing import Route
from tests.support.provider import ScriptedProvider
from tests.support.web import client, settings

from coterie.api.app import make_state
from coterie.api.openapi import openapi
from coterie.api.routes import make_router
from coterie.errors import CATALOGUE, ApiError
from coterie.errors.render import error_object
from coterie.version import __version__

DOCUMENT: dict[str, Any] = orjson.loads(openapi())

UNDESCRIBED = {"/openapi.json", "/docs"}
"""Routes about the description itself."""


def test_every_route_is_described_and_no_other() -> None:
    router = make_router(make_state(settings(), [ScriptedProvider()]))
    routes = [route for route in router.routes if isinstance(route, Route)]
    methods = {route.path.replace(":path", ""): (route.methods or set()) - {"HEAD"} for route in routes}
    described = {path: {method.upper() for method in operations} for path, operations in DOCUMENT["paths"].items()}
    assert described == {path: names for path, names in methods.items() if path not in UNDESCRIBED}


def test_every_reference_leads_somewhere() -> None:
    references = set(re.findall(r'"\$ref":"#/([^"]+)"', openapi().decode()))
    assert references
    for reference in references:
        place: Any = DOCUMENT
        for key in reference.split("/"):
            place = place[key]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/metrics", "/health", "/ready"])
async def test_whether_a_key_is_needed(path: str) -> None:
    [(method, operation)] = DOCUMENT["paths"][path].items()
    answer = await client(ScriptedProvider(), server={"api_keys": ["sk-secret"]}).get(path, method.upper())
    assert ("security" in operation) is (answer.status == 401)


def test_every_status_is_described() -> None:
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            assert {str(entry.status) for entry in CATALOGUE.values()} <= operation["responses"].keys()


@pytest.mark.parametrize("code", CATALOGUE)
def test_the_schema_of_an_error_fits_every_error(code: str) -> None:
    schema = DOCUMENT["components"]["schemas"]["Error"]
    fields: dict[str, Any] = dict.fromkeys(re.findall(r"{(\w+)}", CATALOGUE[code].message), "x")
    fields.pop("param", None)
    error = error_object(ApiError(code, param="model", **fields), "req_0")
    assert error.keys() == set(schema["required"]) == schema["properties"].keys()
    assert error["code"] in schema["properties"]["code"]["enum"]
    assert error["type"] in schema["properties"]["type"]["enum"]


def test_the_version() -> None:
    assert DOCUMENT["info"]["version"] == __version__

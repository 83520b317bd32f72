"""The OpenAPI document: valid, complete, and true of the API's responses."""

from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from lavant.client import AsyncClient
from lavant.server.auth.quotas import Quotas
from lavant.server.http.api import API
from support.clock import ManualClock


@pytest.fixture
async def document(web: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await web.get("/openapi.json")).raise_for_status().json())


def operation(document: dict[str, Any], path: str) -> dict[str, Any]:
    return dict(document["paths"][path]["get"])


def test_document_is_valid_openapi(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_document_has_every_endpoint(document: dict[str, Any]) -> None:
    nothing: Any = None
    api = API(
        access=nothing, runs=nothing, watcher=nothing, events=nothing, scores=nothing, rules=nothing, tokens=nothing
    )
    routes = [endpoint.route(Quotas(ManualClock()), nothing) for endpoint in api.endpoints()]
    assert list(document["paths"]) == [route.path for route in routes]
    for route in routes:
        in_path = {one["name"] for one in operation(document, route.path)["parameters"] if one["in"] == "path"}
        assert in_path == set(route.param_convertors)


def test_everything_is_described(document: dict[str, Any]) -> None:
    for path in document["paths"]:
        found = operation(document, path)
        assert found["summary"]
        assert all(one["description"] for one in found["parameters"] if one["in"] == "query"), path


async def test_parameters_are_documented_exactly(web: httpx.AsyncClient, document: dict[str, Any]) -> None:
    for path in document["paths"]:
        documented = {one["name"] for one in operation(document, path)["parameters"] if one["in"] == "query"}
        if documented:
            answer = await web.get(path.format(run_id="none", rule_id="none"), params={"unknown": "1"})
            said = f"is not a parameter of this path; use one of {', '.join(sorted(documented))}"
            assert answer.json()["error"]["fields"] == [{"path": "unknown", "description": said}]


async def test_responses_match_their_schemas(
    web: httpx.AsyncClient, client: AsyncClient, document: dict[str, Any]
) -> None:
    async with client.runs.start("agent", labels={"a": "b"}) as run:
        await run.text("hello")
        await run.progress("rows", 1, 2)
    await client.runs.score(run.id, name="helpful", value=0.5)
    schemas = {
        name: {**schema, "additionalProperties": False} if "properties" in schema else schema
        for name, schema in document["components"]["schemas"].items()
    }
    statuses = set()
    for path in document["paths"]:
        responses = operation(document, path)["responses"]
        if "application/json" in responses["200"]["content"]:
            answer = await web.get(path.format(run_id=run.id, rule_id="none"))
            response = responses["200" if answer.status_code == 200 else "default"]
            schema = {**response["content"]["application/json"]["schema"], "components": {"schemas": schemas}}
            OAS31Validator(schema).validate(answer.json())
            statuses.add(answer.status_code)
    assert statuses == {200, 400, 404}

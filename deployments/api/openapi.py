"""The published description, made to say what the server does."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from deployments.api.schemas import ErrorBody

# What every route may answer: a URL or body that is refused, a store that is away, and a mistake of the server.
_ALWAYS = {
    "400": "The request is wrong.",
    "413": "The body is too large.",
    "500": "The server's mistake.",
    "503": "Wait.",
}
_METHODS = frozenset({"get", "post", "put", "delete", "patch"})
_FRAMEWORK = ("HTTPValidationError", "ValidationError")  # FastAPI's own shape of a 422, which nobody gets


def install(app: FastAPI) -> None:
    """Replaces FastAPI's description with one where bad input is a 400 in OpenAI's shape, as it really is."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = corrected(get_openapi(title=app.title, version=app.version, routes=app.routes))
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign] # FastAPI's documented way


def corrected(schema: dict[str, Any]) -> dict[str, Any]:
    """The description of `get_openapi` without 422 and with what every route may answer."""
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in _FRAMEWORK:
        components.pop(name, None)
    own = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    components |= {**own.pop("$defs"), "ErrorBody": own}
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    for methods in schema["paths"].values():
        for method, operation in methods.items():
            if method not in _METHODS:
                continue
            responses = operation["responses"]
            responses.pop("422", None)
            shape = responses.get("400", {}).get("content", body)  # another dialect has a shape of its own
            for status, description in _ALWAYS.items():
                responses.setdefault(status, {"description": description, "content": shape})
    return schema

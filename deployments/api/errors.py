"""The one table from the error tree to HTTP, and the error bodies of the three dialects.

| dialect | body |
|---|---|
| OpenAI | `{"error": {"message", "type", "param", "code"}}` |
| WaveSpeed, below `/api/v3/` | `{"code": HTTP status, "message"}` |
| Runware, below `/runware/` | `{"errors": [{"code", "message", "parameter", "taskUUID", "taskType"}]}` |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from cluster import errors
from cluster.canonical import word
from cluster.records import Dialect
from deployments.api.bodies import Problem, problems
from deployments.api.links import WAVESPEED_ROOT

RUNWARE_ROOT = "/runware"


@dataclass(frozen=True, slots=True)
class Row:
    """How a leaf of the error tree leaves. Where `runware` is None, Runware's code is the leaf's own in camel case."""

    status: int
    openai: str
    runware: str | None = None


TABLE: Mapping[type[errors.SkyreelsError], Row] = {
    errors.UnknownModel: Row(404, "invalid_request_error", "modelNotServed"),
    errors.MediaRejected: Row(400, "invalid_request_error"),
    errors.UrlRejected: Row(400, "invalid_request_error"),
    errors.InvalidRequest: Row(400, "invalid_request_error", "invalidParameter"),
    errors.Unauthenticated: Row(401, "invalid_request_error"),
    errors.Forbidden: Row(403, "permission_error"),
    errors.NotFound: Row(404, "invalid_request_error"),
    errors.Conflict: Row(409, "invalid_request_error"),
    errors.LimitExceeded: Row(429, "rate_limit_error"),
    errors.Unavailable: Row(503, "server_error"),
    errors.SkyreelsError: Row(500, "server_error"),
}
_PROBLEM_CODES = {"missing": "missingParameter", "unknown": "unknownParameter", "invalid": "invalidParameter"}
_HTTP_CODES = {400: errors.InvalidRequest.code, 404: "not_found", 405: "method_not_allowed"}


def row_of(kind: type[errors.SkyreelsError]) -> Row:
    """The row of a leaf: its own or its nearest ancestor's."""
    return next(TABLE[ancestor] for ancestor in kind.__mro__ if ancestor in TABLE)


def dialect_of(path: str) -> Dialect:
    """Whose words are spoken at a path."""
    if path.startswith(f"{WAVESPEED_ROOT}/"):
        return Dialect.WAVESPEED
    return Dialect.RUNWARE if path.startswith(f"{RUNWARE_ROOT}/") else Dialect.OPENAI


def body(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, dict[str, str | None]]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def wavespeed_body(status: int, message: str) -> dict[str, Any]:
    """WaveSpeed's envelope of a refusal."""
    return {"code": status, "message": message}


def camel(code: str) -> str:
    """A code in Runware's spelling: "out_of_memory" → "outOfMemory"."""
    return re.sub(r"_(.)", lambda match: match[1].upper(), code)


def runware_error(error: errors.SkyreelsError) -> dict[str, Any]:
    """One entry of Runware's `errors`, the task's own fields aside."""
    param = error.param and word(Dialect.RUNWARE, error.param)
    code = row_of(type(error)).runware or camel(error.code)
    return {"code": code, "message": error.message} | ({"parameter": param} if param else {})


def runware_problem(problem: Problem) -> dict[str, Any]:
    """As `runware_error`, of something that the body's schema refuses."""
    entry = {"code": _PROBLEM_CODES[problem.kind], "message": problem.message}
    return entry | ({"parameter": problem.param} if problem.param else {})


def sentence(found: Sequence[Problem]) -> str:
    """Everything that is wrong with a body in one message."""
    missing = [problem.name for problem in found if problem.kind == "missing"]
    unknown = [problem.name for problem in found if problem.kind == "unknown"]
    parts = [f"Missing required parameters: {', '.join(missing)}."] if missing else []
    parts += [f"Unknown parameters: {', '.join(unknown)}."] if unknown else []
    return " ".join(parts + [problem.message for problem in found if problem.kind == "invalid"])


def advice(error: errors.SkyreelsError) -> dict[str, str]:
    """Headers of the leaves that ask to wait, or for a key."""
    if isinstance(error, errors.LimitExceeded | errors.Unavailable):
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": "Bearer"}
    return {}


def refusal(path: str, error: errors.SkyreelsError) -> JSONResponse:
    """A leaf in the words of the dialect that is spoken at the path."""
    row = row_of(type(error))
    dialect = dialect_of(path)
    content: dict[str, Any]
    if dialect is Dialect.WAVESPEED:
        content = wavespeed_body(row.status, error.message)
    elif dialect is Dialect.RUNWARE:
        content = {"errors": [runware_error(error)]}
    else:
        content = body(error.message, kind=row.openai, code=error.code, param=error.param)
    return JSONResponse(content, row.status, headers=advice(error))


def plain_refusal(
    path: str, status: int, message: str, code: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer of the HTTP layer itself (404, 405, 413) in the words of the path's dialect."""
    dialect = dialect_of(path)
    content: dict[str, Any]
    if dialect is Dialect.WAVESPEED:
        content = wavespeed_body(status, message)
    elif dialect is Dialect.RUNWARE:
        content = {"errors": [{"code": camel(code), "message": message}]}
    else:
        content = body(message, kind="invalid_request_error", code=code)
    return JSONResponse(content, status, headers=headers)


def bad_body(path: str, found: Sequence[Problem]) -> JSONResponse:
    """400 with everything that a schema refuses; OpenAI's shape has room for the first."""
    dialect = dialect_of(path)
    content: dict[str, Any]
    if dialect is Dialect.WAVESPEED:
        content = wavespeed_body(400, sentence(found))
    elif dialect is Dialect.RUNWARE:
        content = {"errors": [runware_problem(problem) for problem in found]}
    else:
        first = found[0]
        content = body(
            first.message,
            kind="invalid_request_error",
            code=errors.InvalidRequest.code,
            param=first.param or None,
        )
    return JSONResponse(content, 400)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, errors.SkyreelsError):
        raise error
    return refusal(request.url.path, error)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    return bad_body(request.url.path, problems(error.errors()))


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    code = _HTTP_CODES.get(error.status_code, "http_error")
    message, headers = str(error.detail), error.headers
    if message == HTTPStatus(error.status_code).phrase:  # the framework's own: no sentence, and one route's methods
        allowed = _methods(request)
        if error.status_code == HTTPStatus.NOT_FOUND:
            message = "There is nothing at this address; /docs lists what there is."
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and allowed:
            message = f"This address takes {' and '.join(allowed)}; got {request.method}."
            headers = {"Allow": ", ".join(allowed)}
    return plain_refusal(request.url.path, error.status_code, message, code, headers)


def _methods(request: Request) -> list[str]:
    """What may be done at the request's address."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    found = (route.methods or set() for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted(set().union(*found))


def install(app: FastAPI) -> None:
    """Every error of the application leaves in the shape of the dialect that was spoken."""
    app.add_exception_handler(errors.SkyreelsError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)

"""JSON bodies: read once, strictly, and with every problem of a body told at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import Request
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cluster.errors import InvalidRequest

MAX_VALUES = 20_000  # of one body; the largest array of tasks has fewer


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a body: where, and in words."""

    kind: str  # "missing", "unknown" or "invalid"
    param: str  # dotted path, "" = the body itself
    message: str  # one sentence

    @property
    def name(self) -> str:
        """The parameter's path as a human reads it."""
        return self.param or "body"


async def read_json(request: Request) -> object:
    """The body as JSON.

    Raises:
        InvalidRequest: not JSON, NaN or an infinity, nested too deep, too many values, or text that is no UTF-8.
    """
    raw = await request.body()
    try:
        value: object = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # too many digits is a plain ValueError
        raise InvalidRequest("The body is not valid JSON.") from error
    _check_count(value)
    if b"\\u" in raw:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("The body contains half of a surrogate pair; send whole characters.") from error
    return value


def check_texts(body: object) -> None:
    """Refuses a body, or a part of one, with a NUL character in a text or a name: not every column can keep one.

    Raises:
        InvalidRequest: names the parameter; of a name that holds one, what it belongs to.
    """
    waiting: list[tuple[object, tuple[str | int, ...]]] = [(body, ())]
    while waiting:
        node, path = waiting.pop()
        names = node.keys() if isinstance(node, dict) else [node]
        if any(isinstance(name, str) and "\0" in name for name in names):
            param = _path(path)
            raise InvalidRequest(f"{param or 'body'} must not contain a NUL character.", param=param or None)
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        waiting += [(child, (*path, name)) for name, child in children]


def _check_count(value: object) -> None:
    """A schema tells of each value that is wrong, so there must not be millions."""
    waiting, seen = [value], 1
    while waiting:
        node = waiting.pop()
        children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        seen += len(children)
        if seen > MAX_VALUES:
            raise InvalidRequest(f"The body holds more than {MAX_VALUES} values; send fewer.")
        waiting += children


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def problems(details: Sequence[ErrorDetails | Mapping[str, Any]]) -> list[Problem]:
    """What pydantic found, in our words."""
    return [_problem(detail) for detail in details]


def _problem(detail: ErrorDetails | Mapping[str, Any]) -> Problem:
    param = _path([part for part in detail["loc"] if part not in {"body", "query", "path"}])
    name = param or "body"
    if detail["type"] == "missing":
        return Problem("missing", param, f"{name} is required.")
    if detail["type"] == "extra_forbidden":
        return Problem("unknown", param, f"{name} is not a parameter of this request.")
    reason = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    return Problem("invalid", param, f"{name}: {reason[:1].lower()}{reason[1:].rstrip('.')}.")


def _path(parts: Sequence[str | int]) -> str:
    """As a programmer writes it: "inputs.referenceImages[0].tag"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def body_schema(*models: type[BaseModel], array: bool = False) -> dict[str, Any]:
    """The OpenAPI request body of a route that reads its body by hand: one of `models`, or an array of them."""
    schemas = []
    for model in models:
        schema = model.model_json_schema()
        schemas.append(inlined(schema, schema.pop("$defs", {})))
    one = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    schema = {"type": "array", "items": one, "minItems": 1} if array else one
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """References resolved: FastAPI does not publish the parts of a body that it does not parse as components."""
    if isinstance(node, dict):
        if "$ref" in node:
            return inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {key: inlined(value, definitions) for key, value in node.items()}
    return [inlined(item, definitions) for item in node] if isinstance(node, list) else node

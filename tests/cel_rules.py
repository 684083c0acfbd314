"""Rules in the Common Expression Language (`x-kubernetes-validations`), evaluated as the API server does.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import cel

Schema = dict[str, Any]
_ABSENT = object()
_SIGNS = {".": "__dot__", "-": "__dash__", "/": "__slash__"}
_KEYWORDS = frozenset(
    {
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    }
)  # fmt: skip


def broken(schema: Schema, value: Any, old: Any = _ABSENT, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and message of each rule that a value breaks, defaults having been applied.

    `old` is what was stored before; rules that compare with it are skipped where nothing was.
    """
    for rule in schema.get("x-kubernetes-validations", ()):
        program, compares = _compiled(rule["rule"])
        if compares and old is _ABSENT:
            continue
        variables = {"self": _named(schema, value)}
        if compares:
            variables["oldSelf"] = _named(schema, old)
        if program.execute(variables) is not True:
            yield path, rule.get("message", rule["rule"])
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for key, one in value.items():
            if part := _part(schema, key):
                yield from broken(part, one, before.get(key, _ABSENT), f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, one in enumerate(value):  # the elements of lists have no counterpart: none is keyed
            yield from broken(schema["items"], one, path=f"{path}.{index}")


def _part(schema: Schema, key: str) -> Schema:
    others = schema.get("additionalProperties")
    found: Schema = schema.get("properties", {}).get(key) or (others if isinstance(others, dict) else {})
    return found


@functools.cache
def _compiled(rule: str) -> tuple[cel.Program, bool]:
    program = cel.compile(rule)
    return program, "oldSelf" in program.variables()


def _named(schema: Schema, value: Any) -> Any:
    """The value with its properties' names as rules write them; keys of maps stay."""
    if isinstance(value, list):
        return [_named(schema.get("items", {}), one) for one in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties", {})
    return {(_escaped(key) if key in known else key): _named(_part(schema, key), one) for key, one in value.items()}


def _escaped(name: str) -> str:
    if name in _KEYWORDS:
        return f"__{name}__"
    return re.sub("[./-]", lambda sign: _SIGNS[sign[0]], name.replace("__", "__underscores__"))

"""Custom resource definitions at work: defaults are filled in, unknown fields pruned, the rest checked, rules too."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema

from tests import crds
from tests.cel_rules import broken

Object = dict[str, Any]


class Definition:
    """One definition of tests/data/crds."""

    def __init__(self, manifest: Object) -> None:
        spec = manifest["spec"]
        versions = [{name: one[name] for name in ("name", "served", "storage")} for one in spec["versions"]]
        self.listed = {**manifest, "spec": {**spec, "versions": versions}}  # without the schemas, which are long
        self.group: str = spec["group"]
        self.plural: str = spec["names"]["plural"]
        self.kind: str = spec["names"]["kind"]
        self._schemas = {one["name"]: one["schema"]["openAPIV3Schema"] for one in spec["versions"] if one["served"]}
        self._checks: dict[str, jsonschema.Draft202012Validator] = {}

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(self._schemas)

    def stored(self, found: Object, version: str, live: Object | None) -> tuple[Object, list[Object]]:
        """The object as it would be stored in place of a living one, and the causes of a refusal."""
        found = copy.deepcopy(found)
        schema = self._schemas[version]
        body = {key: value for key, value in found.items() if key in {"spec", "status"}}
        parts = {key: value for key, value in schema["properties"].items() if key in body}
        whole = {**schema, "properties": parts}
        prune(whole, body)
        crds.default(whole, body)
        found |= body
        if version not in self._checks:
            loose = crds.strict({**schema, "required": ["spec"]}, closed=False)
            self._checks[version] = jsonschema.Draft202012Validator(loose)
        causes = [
            {
                "reason": "FieldValueInvalid" if error.validator != "required" else "FieldValueRequired",
                "field": ".".join(map(str, error.absolute_path)) or "spec",
                "message": error.message[:200],
            }
            for error in self._checks[version].iter_errors(body)
        ]
        if not causes:
            told = broken(whole, body) if live is None else broken(whole, body, live)
            causes = [{"reason": "FieldValueInvalid", "field": path, "message": message} for path, message in told]
        return found, causes


def prune(schema: Object, found: Any) -> None:
    """Removes what the schema does not know, in place."""
    if isinstance(found, list):
        for one in found:
            prune(schema.get("items", {}), one)
    if not isinstance(found, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    others = schema.get("additionalProperties")
    known = schema.get("properties")
    for key in list(found):
        if known and key in known:
            prune(known[key], found[key])
        elif isinstance(others, dict):
            prune(others, found[key])
        elif known is not None and not others:
            del found[key]


_LOADED: dict[str, Definition] = {}


def installed(*names: str) -> list[Definition]:
    for name in names:
        if name not in _LOADED:
            _LOADED[name] = Definition(crds.load(name))
    return [_LOADED[name] for name in names]

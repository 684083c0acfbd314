"""Custom resources as the API server checks them: nulls are dropped, defaults applied, then every field must be known.

`tests/data/crds` holds the definitions; their rules in CEL are evaluated too.
"""

from __future__ import annotations

import copy
import functools
import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema

from tests.cel_rules import broken

DATA = Path(__file__).parent / "data/crds"
_ANNOTATIONS = ("format", "default", "nullable")


def load(name: str) -> dict[str, Any]:
    """A definition by its file, such as "ray.io_rayservices"."""
    found: dict[str, Any] = json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))
    return found


def names() -> list[str]:
    return sorted(path.name.removesuffix(".json.gz") for path in DATA.glob("*.json.gz"))


def strict(schema: dict[str, Any], closed: bool = True) -> dict[str, Any]:
    """A structural schema as a JSON schema; objects take only the properties they name."""
    out = {k: v for k, v in schema.items() if k not in _ANNOTATIONS and not k.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("anyOf", None)
        out["type"] = ["integer", "string"]
    for key in ("items", "additionalProperties", "not"):
        if isinstance(out.get(key), dict):
            out[key] = strict(out[key], closed and key != "not")
    for key in ("allOf", "anyOf", "oneOf"):
        if key in out:
            out[key] = [strict(one, closed=False) for one in out[key]]
    if "properties" in out:
        out["properties"] = {key: strict(one, closed) for key, one in out["properties"].items()}
        if closed and "additionalProperties" not in out and not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    if schema.get("nullable") and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out


def default(schema: dict[str, Any], value: Any) -> None:
    """Drops nulls that may not be and fills in defaults, in place."""
    if isinstance(value, dict):
        for key, one in (schema.get("properties") or {}).items():
            if key in value and value[key] is None and not one.get("nullable"):
                del value[key]
            if key not in value and "default" in one:
                value[key] = copy.deepcopy(one["default"])
            if key in value:
                default(one, value[key])
        if isinstance(schema.get("additionalProperties"), dict):
            for one in value.values():
                default(schema["additionalProperties"], one)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for one in value:
            default(schema["items"], one)


class Schemas:
    """The schemas of all kinds in `tests/data/crds`."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], tuple[dict[str, Any], jsonschema.Draft202012Validator]] = {}
        for name in names():
            spec = load(name)["spec"]
            for version in spec["versions"]:
                raw = version["schema"]["openAPIV3Schema"]
                whole = strict(raw)
                whole["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
                whole["properties"]["metadata"] = {"type": "object"}
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                self._kinds[key] = (raw, jsonschema.Draft202012Validator(whole))

    def knows(self, manifest: dict[str, Any]) -> bool:
        return (manifest["apiVersion"], manifest["kind"]) in self._kinds

    def defaulted(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """A copy as the API server would store it."""
        raw, _ = self._kinds[manifest["apiVersion"], manifest["kind"]]
        stored = copy.deepcopy(manifest)
        default(raw, stored)
        return stored

    def errors(self, manifest: dict[str, Any]) -> list[str]:
        """What the API server would refuse; empty when it would not."""
        raw, validator = self._kinds[manifest["apiVersion"], manifest["kind"]]
        stored = self.defaulted(manifest)
        found = [(".".join(map(str, error.absolute_path)), error.message) for error in validator.iter_errors(stored)]
        # As on the server, rules see only what has the right form.
        return [f"{path}: {message[:200]}" for path, message in found or broken(raw, stored)]


@functools.cache
def schemas() -> Schemas:
    return Schemas()

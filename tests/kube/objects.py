"""What an API server does to objects, on plain data: merge patches, field ownership, selectors."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]
Path = tuple[str, ...]
_IDENTITY = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
_SERVERS = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp")


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: mappings are merged, null deletes, everything else replaces, lists too."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def fields(found: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf with its path. A list is one leaf, as in CRDs that say nothing else."""
    if isinstance(found, dict) and (found or not path):
        for key, value in found.items():
            if path == ("metadata",) and key in _SERVERS:
                continue
            yield from fields(value, (*path, key))
    elif path not in _IDENTITY:
        yield path, found


def at(found: Any, path: Path) -> Any:
    """The value at a path, or None."""
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def put(found: Object, path: Path, value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(found.get(key), dict):
            found[key] = {}
        found = found[key]
    found[path[-1]] = copy.deepcopy(value)


def drop(found: Object, path: Path) -> None:
    if isinstance(parent := at(found, path[:-1]), dict):
        parent.pop(path[-1], None)


class Owned(Exception):
    """Other managers own fields that the applied object would change."""

    def __init__(self, conflicts: list[tuple[str, Path]]) -> None:
        super().__init__(str(conflicts))
        self.conflicts = conflicts


@dataclass
class Owners:
    """Who set which fields: (manager, operation) → paths."""

    of: dict[tuple[str, str], set[Path]] = field(default_factory=dict)

    def applied(self, manager: str, live: Object | None, wanted: Object, *, force: bool) -> Object:
        """The object after a server-side apply.

        A field that this manager applied before and has now left out goes, unless somebody else owns it too. Owned.
        """
        me = (manager, "Apply")
        new = dict(fields(wanted))
        conflicts = [
            (other, path)
            for (other, operation), paths in self.of.items()
            if (other, operation) != me
            for path in sorted(paths & new.keys())
            if live is not None and at(live, path) != new[path]
        ]
        if conflicts and not force:
            raise Owned(conflicts)
        merged = (
            copy.deepcopy(live) if live is not None else {k: copy.deepcopy(wanted[k]) for k in ("apiVersion", "kind")}
        )
        for path in self.of.get(me, set()) - new.keys():
            if not any(path in paths for owner, paths in self.of.items() if owner != me):
                drop(merged, path)
        for path, value in new.items():
            put(merged, path, value)
        for other, path in conflicts:
            for (name, _), paths in self.of.items():
                if name == other:
                    paths.discard(path)
        self.of[me] = set(new)
        return merged

    def updated(self, manager: str, before: Object | None, after: Object) -> None:
        """Whoever changes a field by another kind of write owns it from then on, alone."""
        old, new = dict(fields(before or {})), dict(fields(after))
        changed = {path for path, value in new.items() if old.get(path, _MISSING) != value}
        if not changed:
            return
        for paths in self.of.values():
            paths.difference_update(changed, old.keys() - new.keys())
        self.of.setdefault((manager, "Update"), set()).update(changed)

    def listed(self) -> list[Object]:
        """As `metadata.managedFields` tells it."""
        entries = []
        for (manager, operation), paths in sorted(self.of.items()):
            tree: Object = {}
            for path in sorted(paths):
                node = tree
                for key in path:
                    node = node.setdefault(f"f:{key}", {})
            entries.append({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": tree})
        return entries


_MISSING = object()
_TERM = re.compile(r"^(!?)([^\s!=,()]+)$|^(\S+?)\s*(==|=|!=)\s*(\S*)$|^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")


def selects(selector: str, labels: dict[str, str]) -> bool:
    """A label selector: x, !x, x=y, x==y, x!=y, x in (y, z), x notin (y, z), joined by commas. ValueError."""
    for term in re.split(r",(?![^(]*\))", selector):
        found = _TERM.match(term.strip())
        if found is None:
            raise ValueError(f"unable to parse requirement: {term}")
        without, name, key, operator, value, member, membership, values = found.groups()
        if name:
            holds = (name in labels) is not bool(without)
        elif key:
            holds = (labels.get(key) == value) is (operator != "!=")
        else:
            holds = (labels.get(member) in {one.strip() for one in values.split(",")}) is (membership == "in")
        if not holds:
            return False
    return True

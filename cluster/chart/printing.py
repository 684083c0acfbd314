"""Values as YAML with the model's descriptions as comments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from cluster.chart.base import Section
from cluster.chart.values import Values

_HEAD = """\
# Values of the skyreels chart and their defaults. Made by `make chart` from cluster/chart; change it there.
# The values of a profile, `-f profiles/NAME.yaml`, hold the worker groups and the Serve config.
"""
_WIDTH = 118


def default_values() -> str:
    """The chart's values.yaml."""
    return _HEAD + "".join(_lines(Values(), ""))


def _lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        comment = field.description or (_summary(value) if isinstance(value, Section) else None)
        if comment:
            yield from _comment(comment, indent)
        key = f"{indent}{field.alias or name}:"
        if isinstance(value, Section):
            yield f"{key}\n"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{key} {json.dumps(_plain(value))}\n"


def _summary(section: Section) -> str | None:
    doc = type(section).__doc__
    return " ".join(doc.split()) if doc else None


def _comment(text: str, indent: str) -> Iterator[str]:
    line = f"{indent}#"
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH:
            yield f"{line}\n"
            line = f"{indent}#"
        line += f" {word}"
    yield f"{line}\n"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value

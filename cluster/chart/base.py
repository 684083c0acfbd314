"""What all sections of the chart's values have in common: camel case outside, no unknown key, types of Kubernetes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from cluster.pools import LabelValue

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
Natural = Annotated[int, Field(ge=0)]
Labels = dict[str, LabelValue]
Annotations = dict[str, str]
Plain = dict[str, Any]  # an object of Kubernetes that the chart passes on


class Section(BaseModel):
    """Part of the values. Written in snake_case or camelCase, printed in camelCase."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class Toleration(Section):
    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None
    toleration_seconds: int | None = None

"""Multipart forms as the JSON bodies they stand for: `video[id]` is an object's field, `images[]` a list's item."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from cluster.errors import InvalidRequest
from deployments.api.bodies import check_texts, read_json

MAX_FORM_PARTS = 64  # more than any request needs; the limit on images answers before this does
_NAME = re.compile(r"(\w+)(\[\])?(?:\[(\w+)\])?")

Files = Sequence[tuple[str, bytes]]


async def read_body(request: Request, *, lists: frozenset[str] = frozenset()) -> tuple[object, Files]:
    """The fields of a JSON or multipart body, and its files by field name (without brackets), in order. A field named
    in `lists` may be repeated.

    Raises:
        InvalidRequest: another media type, not JSON, not a form, a field that is given twice, or a NUL character.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields: object
    files: Files = ()
    if media_type == "application/json":
        fields = await read_json(request)
    elif media_type == "multipart/form-data":
        async with request.form(max_files=MAX_FORM_PARTS, max_fields=MAX_FORM_PARTS) as form:
            fields, files = await _unfold(form, lists)
    else:
        raise InvalidRequest("Send application/json or multipart/form-data.", param="content-type")
    check_texts(fields)
    return fields, files


async def _unfold(form: FormData, lists: frozenset[str]) -> tuple[dict[str, Any], Files]:
    fields: dict[str, Any] = {}
    files: list[tuple[str, bytes]] = []
    for raw, value in form.multi_items():
        found = _NAME.fullmatch(raw)
        name, listed, key = found.groups() if found else (raw, None, None)
        if isinstance(value, UploadFile):
            files.append((name, await value.read()))
            continue
        item = value if key is None else {key: value}
        known = fields.get(name)
        if listed or name in lists:
            if not isinstance(fields.setdefault(name, []), list):
                raise _twice(raw, name)
            fields[name].append(item)
        elif name not in fields:
            fields[name] = item
        elif key is not None and isinstance(known, dict) and key not in known:
            known[key] = value
        else:
            raise _twice(raw, name)
    return fields, files


def _twice(field: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is given twice.", param=param)

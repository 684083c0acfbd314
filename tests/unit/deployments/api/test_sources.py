"""What a text names follows from its form alone."""

from __future__ import annotations

import base64
import uuid

import pytest

from cluster.errors import InvalidRequest
from deployments.api.sources import (
    Base64Source,
    DataUriSource,
    FileSource,
    Reference,
    Source,
    UrlSource,
    parse_source,
    references,
)

NUMBER = "5b1a9f3e-8c1d-4c0e-9a53-2f2c1e7d9b10"
GIF = base64.b64encode(b"GIF89a" + bytes(40)).decode()


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("https://host/a.png?sig=1", UrlSource("https://host/a.png?sig=1")),
        ("HTTP://host/a.png", UrlSource("HTTP://host/a.png")),
        ("http:host", UrlSource("http:host")),  # malformed, which the fetcher says
        (f"data:image/png;base64,{GIF}", DataUriSource(f"data:image/png;base64,{GIF}")),
        ("DATA:,x", DataUriSource("DATA:,x")),
        (GIF, Base64Source(GIF)),
        ("/9j/4AAQSkZJRgABAQ", Base64Source("/9j/4AAQSkZJRgABAQ")),  # how every JPEG begins
        (f"file-{NUMBER}", FileSource(f"file-{NUMBER}")),
        (NUMBER, FileSource(f"file-{NUMBER}")),
        (NUMBER.upper(), FileSource(f"file-{NUMBER}")),
    ],
)
def test_forms(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize(
    "text",
    ["", "cat", "ball.png", "a ball", "../x", "file:///etc/passwd", "ftp://host/x", "javascript:1",
     "ea845c60-e514-11f1-8445-02fc00000001",
     "file-1", f"file-{NUMBER}\n", f"{NUMBER}0", "é" * 8, "====", "C:\\x.png"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^images\[1\]: neither an http\(s\) URL, a data URI") as caught:
        parse_source(text, param="images[1]")
    assert caught.value.param == "images[1]"


def test_any_fresh_uuid4_is_a_file() -> None:
    number = str(uuid.uuid4())
    assert parse_source(number) == parse_source(f"file-{number}") == FileSource(f"file-{number}")


def test_a_long_text_is_told_by_its_head() -> None:
    text = "A" * 10_000_000
    assert parse_source(text) == Base64Source(text)


def test_lists_name_their_places() -> None:
    assert references(["https://a/x", NUMBER], "inputs.referenceImages") == [
        Reference(UrlSource("https://a/x"), "inputs.referenceImages[0]"),
        Reference(FileSource(f"file-{NUMBER}"), "inputs.referenceImages[1]"),
    ]
    with pytest.raises(InvalidRequest, match=r"images\[1\]"):
        references([GIF, "?"], "images")

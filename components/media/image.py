"""Reading a client's image: bounds first, pixels second.

The size is known from the header before anything is decoded, so that a small file cannot ask for much memory. The
formats are the ones cameras, browsers and design tools save photographs in: PNG, JPEG, WebP and GIF. TIFF, AVIF, SVG
and the rest are containers of many codecs or programs, a large surface for no benefit here.

Pillow's own bomb guard is a process-wide number; the plugin classes are used directly, so each call has its own bound.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from components.errors import MediaError

_READERS: dict[str, type[ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
}
FORMATS = "PNG, JPEG, WebP or GIF"
_MAX_JPEG_SCANS = 64  # a progressive file has about ten; each scan walks every pixel again
# What Pillow raises on damaged files; all of it means the same to a client.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image is. `width` and `height` are pixels after EXIF orientation."""

    width: int
    height: int
    media_type: str  # "image/png"
    format: str  # "PNG"


def probe(data: bytes, *, max_pixels: int) -> ImageInfo:
    """What `data` holds, after a full decode has shown that it is whole.

    Raises:
        MediaError: not one of the formats, more than `max_pixels`, empty, cut off or damaged.
    """
    image = _decode(data, max_pixels)
    width, height = _upright(image).size
    name = str(image.format)
    return ImageInfo(width=width, height=height, media_type=f"image/{name.lower()}", format=name)


def read(data: bytes, *, max_pixels: int) -> Image.Image:
    """The image as 8-bit RGB, upright; of an animation the first frame, of transparency the colours beneath.

    Raises:
        MediaError: as `probe`.
    """
    image = _upright(_decode(data, max_pixels))
    if image.mode == "I;16":  # 16-bit greys; Pillow's conversion would clip everything over 255 to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _decode(data: bytes, max_pixels: int) -> ImageFile:
    if not data:
        raise MediaError("The image is empty; send the whole file.")
    name = sniff(data)
    if name is None:
        raise MediaError(f"The file is not an image of a known format; send {FORMATS}.")
    if name == "WEBP":  # the only reader here that allocates its canvas when it is constructed
        _check_size(_webp_size(data), max_pixels)
    if name == "JPEG" and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise MediaError(f"The image has more than {_MAX_JPEG_SCANS} scans; save it again as a plain JPEG.")
    try:
        image = _READERS[name](io.BytesIO(data))
        _check_size(image.size, max_pixels)
        image.load()
    except _DAMAGED as error:
        raise MediaError(f"The {name} image is damaged or cut off; send the whole file.") from error
    return image


def _upright(image: ImageFile) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGED as error:
        raise MediaError("The image's EXIF data is damaged; remove it or save the image again.") from error


def sniff(head: bytes) -> str | None:
    """The format by a file's first bytes; names and declared types are not to be trusted."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return "GIF" if head.startswith((b"GIF87a", b"GIF89a")) else None


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the first chunk, RFC 9649 §2.5–2.7: lossy, lossless or extended."""
    kind, payload = data[12:16], data[20:30]
    if kind == b"VP8 " and len(payload) == 10:
        width, height = struct.unpack_from("<HH", payload, 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(payload) >= 5:
        bits = int.from_bytes(payload[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(payload) == 10:
        return int.from_bytes(payload[4:7], "little") + 1, int.from_bytes(payload[7:10], "little") + 1
    raise MediaError("The WEBP image is damaged or cut off; send the whole file.")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise MediaError("The image has no pixels.")
    if width * height > max_pixels:
        raise MediaError(f"The image is {width}×{height} pixels; at most {max_pixels} pixels are accepted.")

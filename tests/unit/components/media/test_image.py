import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from components.errors import MediaError
from components.media.image import ImageInfo, probe, read

LIMIT = 1_000_000


def picture(height: int = 24, width: int = 40) -> Image.Image:
    """A gradient: every corner has another colour."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), np.full_like(x, 90)], axis=-1)
    return Image.fromarray(rgb.astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_of_size(width: int, height: int) -> bytes:
    """A small, valid PNG file that claims to be of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_accepted_formats(kind, media_type):
    assert probe(saved(picture(24, 40), kind), max_pixels=LIMIT) == ImageInfo(40, 24, media_type, kind)


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"lossless": False, "exif": b"Exif\0\0"}])
def test_webp_variants(options):
    assert probe(saved(picture(7, 9), "WEBP", **options), max_pixels=63).width == 9
    with pytest.raises(MediaError, match="9×7 pixels; at most 62"):
        probe(saved(picture(7, 9), "WEBP", **options), max_pixels=62)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_one_pixel_and_exact_limit(kind):
    assert probe(saved(picture(1, 1), kind), max_pixels=1).height == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} | ({"lossless": True} if kind == "WEBP" else {})
    data = saved(picture(24, 40), kind, **options)

    info = probe(data, max_pixels=LIMIT)
    assert (info.width, info.height) == ((40, 24) if orientation <= 4 else (24, 40))

    # The reference order of operations: transpose, then convert.
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(np.asarray(read(data, max_pixels=LIMIT)), np.asarray(expected))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_png_modes_become_rgb(mode):
    data = saved(picture().convert(mode), "PNG")
    image = read(data, max_pixels=LIMIT)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(picture().convert(mode).convert("RGB")))


def test_transparency_keeps_the_colours_beneath():
    image = picture().convert("RGBA")
    image.putalpha(0)
    np.testing.assert_array_equal(np.asarray(read(saved(image, "PNG"), max_pixels=LIMIT)), np.asarray(picture()))


def test_cmyk_jpeg():
    image = read(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), max_pixels=LIMIT)
    assert image.mode == "RGB"
    red, green, blue = image.getpixel((8, 8))
    assert red > 240 and green < 20 and blue < 20


def test_sixteen_bit_greys_keep_their_steps():
    grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    values = np.asarray(read(saved(Image.fromarray(grey), "PNG"), max_pixels=LIMIT))
    np.testing.assert_array_equal(values, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=-1))


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert read(data, max_pixels=64).getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF", b"\x89PNG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0\0\0\x1cftypisom\0\0\2\0isommp41",
     b"BM" + b"\0" * 100, b"II*\0" + b"\0" * 100, b"hello" * 50],
)  # fmt: skip
def test_other_files_are_refused(data):
    with pytest.raises(MediaError, match=r"empty|not an image of a known format"):
        probe(data, max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_cut_off_files_are_refused(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    data = saved(noise, kind)
    for cut in (9, 14, 40, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(MediaError) as caught:
            probe(data[:cut], max_pixels=LIMIT)
        assert str(caught.value).count(".") == 1


def test_huge_sizes_are_refused_by_their_header():
    with pytest.raises(MediaError, match="100000×100000"):
        probe(png_of_size(100_000, 100_000), max_pixels=40_000_000)
    # Between one and two times Pillow's own limit, where it would only warn.
    with pytest.raises(MediaError, match="10000×10000"):
        probe(png_of_size(10_000, 10_000), max_pixels=40_000_000)
    canvas = struct.pack("<I", 10) + b"\x02\0\0\0" + (2**24 - 1).to_bytes(3, "little") * 2
    with pytest.raises(MediaError, match="16777216×16777216"):
        probe(b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + canvas, max_pixels=40_000_000)
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00;"
    with pytest.raises(MediaError):
        probe(screen + frame, max_pixels=40_000_000)


def test_zero_size_is_refused():
    with pytest.raises(MediaError):
        probe(png_of_size(0, 10), max_pixels=LIMIT)


def test_compressed_bomb_of_a_legal_size_stays_small():
    # 200 MiB of zeros behind a 100×100 header: the decoder must stop at the picture's end.
    body = zlib.compress(bytes(200 * 2**20), 9)
    header = struct.pack(">IIBBBBB", 100, 100, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    code = (
        "import resource, sys\n"
        "from components.errors import MediaError\n"
        "from components.media.image import probe\n"
        "data = sys.stdin.buffer.read()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    probe(data, max_pixels=10**6)\n"
        "except MediaError:\n"
        "    pass\n"
        "sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True, cwd=os.getcwd())
    assert int(run.stdout) < 50 * 1024  # KiB


def test_jpeg_with_many_scans_is_refused():
    data = saved(picture(), "JPEG", progressive=True)
    assert probe(data, max_pixels=LIMIT).format == "JPEG"
    scan = data.index(b"\xff\xda")
    with pytest.raises(MediaError, match="scans"):
        probe(data[:scan] + data[scan:-2] * 60 + data[-2:], max_pixels=LIMIT)


def test_pillow_is_left_as_it_was():
    before = Image.MAX_IMAGE_PIXELS
    probe(saved(picture(), "PNG"), max_pixels=LIMIT)
    assert before == Image.MAX_IMAGE_PIXELS


SEEDS = [saved(picture(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")] + [
    saved(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
]


@pytest.mark.filterwarnings("ignore:.*EXIF.*:UserWarning", "ignore:.*[Tt]ag.*:UserWarning")
@settings(max_examples=400, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.one_of(st.none(), st.integers(0, 2000)),
)
def test_damaged_files_raise_nothing_but_media_error(seed, edits, cut):
    data = bytearray(seed)
    for position, value in edits:
        data[position % len(data)] = value
    try:
        image = read(bytes(data[:cut]), max_pixels=10_000)
    except MediaError:
        return
    assert image.mode == "RGB" and image.width * image.height <= 10_000

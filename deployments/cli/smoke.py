"""One video through a running server, checked: the installation works."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from cluster.config import Config
from cluster.errors import Unavailable
from components.media.mux import probe_video
from deployments.cli.client import call, connect, download, follow


def smoke(url: str, config: Config, console: Console) -> None:
    """Makes the shortest video of the first model and reads it back.

    Raises:
        Unavailable: the job failed or the file is not what was asked for.
    """
    model = config.models[0].name
    image = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(image, "PNG")
    with connect(url) as client, tempfile.TemporaryDirectory() as folder:
        files = [("images", ("red.png", image.getvalue(), "image/png"))]
        data = {"model": model, "prompt": "A red sheet waves in the wind", "aspect_ratio": "16:9", "seed": "1"}
        video = follow(client, call(client, "POST", "/v1/videos", data=data, files=files))
        if video["status"] != "completed":
            raise Unavailable(f"The smoke video failed: {video['error']}", retry_after_s=0)
        path = Path(folder) / "smoke.mp4"
        download(client, video["id"], path)
        info = probe_video(path)
        if (info.frames, f"{info.width}x{info.height}") != (video["frames"], video["size"]):
            raise Unavailable(f"The smoke video is not what was asked for: {info}", retry_after_s=0)
        console.print(f"smoke video: {info.frames} frames, {video['size']}, {info.codec}")

"""LiteLLM's video calls against a server, as a program of its own: it prints what it got as JSON.

LiteLLM changes settings of the process that imports it, and asks the internet for prices unless told not to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm


def main(url: str, image: Path) -> dict[str, Any]:
    server: dict[str, Any] = {"api_base": f"{url}/v1", "api_key": "none"}
    with image.open("rb") as file:
        made = litellm.video_generation(
            model="openai/skyreels-v3-r2v", prompt="A red ball rolls", seconds="1", input_reference=file, **server
        )
    status = made
    while status.status in {"queued", "in_progress"}:
        time.sleep(0.2)
        status = litellm.video_status(video_id=made.id, **server)
    files = {
        variant: litellm.video_content(video_id=made.id, variant=variant, **server)[:12].hex()
        for variant in ("video", "thumbnail", "spritesheet")
    }
    listed = litellm.video_list(custom_llm_provider="openai", **server)
    try:
        litellm.video_generation(model="openai/skyreels-v3-r2v", prompt="", **server)
        refused = ""
    except litellm.BadRequestError as error:
        refused = str(error)
    return {
        "first": made.status, "last": status.status, "size": status.size, "files": files,
        "listed": made.id in [video["id"] for video in listed["data"]], "refused": refused,
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(sys.argv[1], Path(sys.argv[2]))))

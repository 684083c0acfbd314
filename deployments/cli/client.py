"""Commands that talk to a running server over HTTP."""

from __future__ import annotations

import mimetypes
import os
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster.errors import InvalidRequest, SkyreelsError

Url = Annotated[str, typer.Option("--url", envvar="SKYREELS_URL", help="Address of the server.")]
DEFAULT_URL = "http://127.0.0.1:8000"
POLL_S = 0.3


class ServerError(SkyreelsError):
    """The server refused; the message is its own."""


def call(client: httpx.Client, method: str, path: str, **kwargs: Any) -> Any:
    """One request; a refusal becomes a ServerError with the server's sentence."""
    response = client.request(method, path, **kwargs)
    if response.is_success:
        return response.json()
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"The server answered {response.status_code}."
    raise ServerError(message)


def connect(url: str) -> httpx.Client:
    """A client that sends the API key of the environment, if there is one."""
    key = os.environ.get("SKYREELS_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)


def generate(
    prompt: Annotated[str, typer.Option(help="What happens in the video.")],
    out: Annotated[Path, typer.Option(help="Where the MP4 goes.")],
    image: Annotated[list[Path] | None, typer.Option(help="A reference image; repeat for more.")] = None,
    video: Annotated[Path | None, typer.Option(help="The video to continue.")] = None,
    audio: Annotated[
        list[Path] | None, typer.Option(help="What the portrait says; repeat for a second speaker.")
    ] = None,
    mask: Annotated[list[Path] | None, typer.Option(help="Where a speaker is; one for each of two.")] = None,
    include_source: Annotated[bool, typer.Option("--include-source", help="The continued video comes first.")] = False,
    model: Annotated[str | None, typer.Option(help="Model; the server's first if left out.")] = None,
    seconds: Annotated[int | None, typer.Option(help="Duration.")] = None,
    aspect_ratio: Annotated[
        str | None, typer.Option(help="16:9, 9:16, 1:1, 4:3 or 3:4; else the first image's.")
    ] = None,
    resolution: Annotated[str | None, typer.Option(help="Resolution family, for example 720P.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; random if left out.")] = None,
    n: Annotated[int, typer.Option("--n", help="How many videos; more than one go to OUT-0, OUT-1 …")] = 1,
    url: Url = DEFAULT_URL,
) -> None:
    """Makes a video and waits for it, showing stage and step."""
    fields = {
        "prompt": prompt, "model": model, "seconds": seconds, "aspect_ratio": aspect_ratio,
        "resolution": resolution, "seed": seed, "n": None if n == 1 else n,
        "include_source": include_source or None,
    }  # fmt: skip
    named = (("images", image), ("video", [video] if video else []), ("audio", audio), ("masks", mask))
    files = [(name, opened(path)) for name, paths in named for path in paths or []]
    with connect(url) as client:
        given = {name: str(value) for name, value in fields.items() if value is not None}
        # Without a file httpx would send a plain form; the server takes JSON for that.
        body: dict[str, Any] = {"data": given, "files": files} if files else {"json": given}
        job = call(client, "POST", "/v1/videos", **body)
        Console(stderr=True).print(f"{job['id']} · {job['size']} · {job['frames']} frames · seed {job['seed']}")
        job = follow(client, job)
        if job["status"] != "completed":
            raise ServerError(f"{job['id']} {job['error']['code']}: {job['error']['message']}")
        for index, path in enumerate(targets(out, n)):
            download(client, job["id"], path, index)
            typer.echo(path)


def opened(path: Path) -> tuple[str, bytes, str]:
    """A file as a form carries it: name, content, type. InvalidRequest."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"The file {path} cannot be read: {error.strerror}.") from error
    return path.name, data, mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def targets(out: Path, n: int) -> list[Path]:
    """Where each result goes: `out` itself when there is only one."""
    return [out] if n == 1 else [out.with_stem(f"{out.stem}-{index}") for index in range(n)]


def follow(client: httpx.Client, video: dict[str, Any]) -> dict[str, Any]:
    """Polls until the job ends, with a bar by stage and step."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(video["phase"], total=100)
        while video["status"] in {"queued", "in_progress"}:
            show(progress, task, video)
            time.sleep(POLL_S)
            video = call(client, "GET", f"/v1/videos/{video['id']}")
        show(progress, task, video)
    return video


def show(progress: Progress, task: TaskID, video: dict[str, Any]) -> None:
    """Puts the running stage and step on the bar."""
    running = [stage for stage in video["stages"] if stage["state"] == "claimed" and stage["steps"]]
    step = f" {running[-1]['step']}/{running[-1]['steps']}" if running else ""
    progress.update(task, description=f"{video['phase']}{step}", completed=video["progress"])


def download(client: httpx.Client, video_id: str, out: Path, index: int = 0) -> None:
    """Streams a result to a temporary file beside `out`, then renames: no half file is ever left under the name."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        params = {"index": index}
        content = client.stream("GET", f"/v1/videos/{video_id}/content", params=params, follow_redirects=True)
        with content as response, part.open("wb") as sink:
            if not response.is_success:
                raise ServerError(f"The content of {video_id} cannot be fetched ({response.status_code}).")
            for data in response.iter_bytes():
                sink.write(data)
        part.replace(out)
    except OSError as error:
        raise InvalidRequest(f"{out} cannot be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)


def status(url: Url = DEFAULT_URL) -> None:
    """Jobs by state; stages with slots, waiting and running calls; replicas."""
    with connect(url) as client:
        report = call(client, "GET", "/v1/status")
    console = Console()
    jobs = ", ".join(f"{count} {state}" for state, count in report["jobs"].items() if count) or "none"
    console.print(f"profile {report['profile']} · {report['topology']} · auth {report['auth']} · jobs: {jobs}")
    stages = Table("stage", "slots", "running", "waiting")
    for stage, slots in sorted(report["slots"].items()):
        stages.add_row(stage, str(slots), str(report["busy"].get(stage, 0)), str(report["ready"].get(stage, 0)))
    replicas = Table("pool", "node", "pid", "loaded", "works on")
    for worker in report["workers"]:
        calls = [
            f"{call['stage']} {call['step']}/{call['steps']} of {call['video_id']}"
            for call in report["running"]
            if call["worker"] == worker["id"]
        ]
        loaded = "\n".join(worker["loaded"])
        replicas.add_row(worker["pool"], worker["node"], str(worker["pid"]), loaded, "\n".join(calls))
    console.print(stages, replicas)
    for reason in report["misplaced"].values():
        console.print(f"[red]{reason}[/]", soft_wrap=True)


def list_videos(
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    url: Url = DEFAULT_URL,
) -> None:
    """The newest jobs."""
    with connect(url) as client:
        page = call(client, "GET", "/v1/videos", params={"limit": limit})
    table = Table()
    for name in ("id", "status", "progress", "size", "s"):
        table.add_column(name, no_wrap=True)
    table.add_column("prompt", overflow="ellipsis", no_wrap=True)
    for video in page["data"]:
        progress = f"{video['progress']} % {video['phase']}" if video["status"] == "in_progress" else ""
        table.add_row(video["id"], video["status"], progress, video["size"], video["seconds"], video["prompt"])
    Console().print(table)


def cancel(video_id: str, url: Url = DEFAULT_URL) -> None:
    """Stops a job; it stays visible as failed with code `cancelled`."""
    with connect(url) as client:
        video = call(client, "POST", f"/v1/videos/{video_id}/cancel")
    typer.echo(f"{video['id']} {video['status']}")


def models(url: Url = DEFAULT_URL) -> None:
    """The served models and their limits."""
    with connect(url) as client:
        served = call(client, "GET", "/v1/models")
    table = Table("model", "resolutions", "aspects", "seconds", "images", "$/s")
    for model in served["data"]:
        table.add_row(
            model["id"],
            " ".join(model["resolutions"]),
            " ".join(model["aspect_ratios"]),
            f"{model['min_seconds']}–{model['max_seconds']}",
            f"{model['min_images']}–{model['max_images']}",
            " ".join(price["per_second_usd"] for price in model["prices"]),
        )
    Console().print(table)

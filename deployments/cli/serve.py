"""`skyreels serve`: the whole system on this machine, from a profile."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster import config as configuration
from cluster.config import Config
from cluster.registry import MODELS
from deployments import preflight
from deployments.cli.smoke import smoke

EXTENDER = "prompt_extension"  # what the chat model's toy weights are called
AUTH = {
    "off": "authentication is off; anybody who reaches this address may use it",
    "keys": "authentication is on: requests need an API key, which `skyreels keys create` makes",
}


def _config(profile: str, config: Path | None) -> Config:
    return configuration.load(config) if config else configuration.profile(profile)


def _write_tiny(config: Config, console: Console) -> None:
    """Tiny checkpoints are written where the config expects them; weights that are there are kept."""
    wanted = {served.checkpoint: MODELS[served.name].task for served in config.models if served.tiny}
    if config.prompt.tiny and config.prompt.checkpoint is not None:
        wanted[config.prompt.checkpoint] = EXTENDER
    missing = {path: task for path, task in wanted.items() if not Path(path).exists()}
    if not missing:
        return
    with console.status(f"writing tiny checkpoint {', '.join(missing)}"):
        from components.tiny import WRITERS  # noqa: PLC0415 (torch is heavy; only needed here)

        for path, task in missing.items():
            WRITERS[task](Path(path))


def serve(
    profile: Annotated[str, typer.Option(help="A shipped profile.")] = "laptop",
    config: Annotated[Path | None, typer.Option(envvar="SKYREELS_CONFIG", help="A YAML file instead.")] = None,
    check: Annotated[bool, typer.Option("--smoke", help="Make one video, then stop.")] = False,
) -> None:
    """Starts Ray, the Api and the stages, and serves until interrupted."""
    console = Console(stderr=True)
    settings = _config(profile, config)
    _write_tiny(settings, console)
    preflight.check(settings)
    from deployments.local import running  # noqa: PLC0415 (Ray is heavy; errors in the config come first)

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with console.status("starting") as line, running(settings, line.update) as local:
        line.stop()
        console.print(f"[green]serving[/] {', '.join(settings.registry.models)} at [bold]{local.url}[/]")
        console.print(AUTH[settings.auth])
        console.print(f"metrics {local.url}/metrics and {local.metrics_url}, logs {local.logs}", soft_wrap=True)
        console.print("try it:\n" + example(local.url), soft_wrap=True, highlight=False, markup=False)
        if check:
            smoke(local.url, settings, console)
            return
        stop.wait()


def example(url: str) -> str:
    """A curl that works as printed: its reference image is in the command."""
    red_ball = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAADAAAAAbAQMAAAAAp54xAAAABlBMVEXr7vLNICxcRLhOAAAAPUlEQVR42p3OoRHAIADF0He/CC"
        "QjdP+pGAGJ4DhEdUUbExMRfnN1QmmEWgmtEO6QJ3tT34SxCHMS1vhycABN4wj8IM2enQAAAABJRU5ErkJggg=="
    )
    return (
        f"  curl {url}/v1/videos -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"prompt": "A red ball rolls to the left", "images": ["{red_ball}"]}}\'\n'
        f"  curl {url}/v1/videos            # then: curl -L -o video.mp4 {url}/v1/videos/ID/content"
    )

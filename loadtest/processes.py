"""The processes of a system on this machine, found by their titles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil

RANKS = {"rank": "ray::DenoiserRank", "VAE rank": "ray::VaeRank", "text rank": "ray::TextRank"}
REPLICA_TITLE = "ray::ServeReplica:skyreels:"


class NotHere(Exception):
    """The system does not run on this machine, or belongs to another user."""


def title_of(kind: str) -> str:
    """How the title of a process of this kind begins: a deployment's replica, or a rank of a group."""
    return RANKS.get(kind, f"{REPLICA_TITLE}{kind}")


def lives(process: psutil.Process) -> bool:
    """Whether the process still does anything; a zombie only waits for somebody to read its exit code."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Processes:
    """The worker processes beside the proxy that listens at a URL: of its raylet, and of no other cluster's."""

    def __init__(self, url: str) -> None:
        port = urlsplit(url).port or 80
        listening = (
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid
        )
        pid = next(listening, None)
        raylet = None if pid is None else psutil.Process(pid).parent()
        if raylet is None or "raylet" not in raylet.name():
            raise NotHere(f"No Serve proxy of this user listens on port {port} here; run it on the system's machine.")
        self._raylet = raylet

    def of(self, kind: str) -> list[psutil.Process]:
        """Living processes of a kind, the oldest first."""
        title = re.compile(re.escape(title_of(kind)) + r"(?!\w)")
        found = [member for member in self._workers() if title.match(_command(member)) and lives(member)]
        return sorted(found, key=lambda member: (member.create_time(), member.pid))

    def _workers(self) -> Iterator[psutil.Process]:
        try:
            yield from self._raylet.children()
        except psutil.NoSuchProcess:
            return


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""

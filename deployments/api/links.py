"""Absolute addresses of what a caller may fetch."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from cluster.config import Config

WAVESPEED_ROOT = "/api/v3"


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses below the one under which clients reach this server, `base` ("https://host", no slash at its end)."""

    base: str

    def content(self, job_id: str, index: int) -> str:
        """A result's file; it asks for the same key as every other route."""
        query = f"?index={index}" if index else ""
        return f"{self.base}/v1/videos/{job_id}/content{query}"

    def prediction(self, job_id: str) -> str:
        """A job as WaveSpeed shows it."""
        return f"{self.base}{WAVESPEED_ROOT}/predictions/{job_id}/result"


def links_of(request: Request, config: Config) -> Links:
    """The addresses as the caller of this request reaches them."""
    return Links((config.api.public_url or str(request.base_url)).rstrip("/"))

"""A receiver of webhooks that fails now and then, as real ones do."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from standardwebhooks import Webhook, WebhookVerificationError


@dataclass(frozen=True, slots=True)
class Receipt:
    """One webhook that came in. `flaw` = why its signature or body cannot be believed."""

    tenant: int
    index: int  # of the job's plan, from the URL
    delivery: str
    video: str
    kind: str
    taken: bool  # answered with success
    flaw: str | None = None


@dataclass
class Receiver:
    """Listens on loopback while it is open. `secrets` are the tenants' signing secrets."""

    port: int = 0
    fail_share: float = 0.3
    seed: int = 1
    secrets: dict[int, str] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)

    def __enter__(self) -> Self:
        receiver, draw, lock = self, random.Random(f"receiver {self.seed}"), threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                with lock:
                    taken = draw.random() >= receiver.fail_share
                    receiver.receipts.append(receiver.read(self.path, dict(self.headers.items()), body, taken=taken))
                self.send_response(HTTPStatus.NO_CONTENT if taken else HTTPStatus.INTERNAL_SERVER_ERROR)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing: receipts are kept."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def host(self) -> str:
        """host:port, as the system's `media.allow_hosts` must name it."""
        return f"127.0.0.1:{self.port}"

    def url(self, tenant: int, index: int) -> str:
        """Where the webhook of a job goes."""
        return f"http://{self.host}/{tenant}/{index}"

    def read(self, path: str, headers: Mapping[str, str], body: bytes, *, taken: bool) -> Receipt:
        """A webhook as it came in, its signature checked against the tenant's secret."""
        tenant, index = (int(part) for part in path.strip("/").split("/"))
        lower = {name.lower(): value for name, value in headers.items()}
        delivery = lower.get("webhook-id", "")
        try:
            event = Webhook(self.secrets[tenant]).verify(body, lower)
            return Receipt(tenant, index, delivery, event["data"]["id"], event["type"], taken)
        except (WebhookVerificationError, KeyError, TypeError, ValueError) as error:
            return Receipt(tenant, index, delivery, "", "", taken, f"{type(error).__name__}: {error}")


class Server(ThreadingHTTPServer):
    """Senders that are killed in the middle are expected here."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke: the sender asks again."""

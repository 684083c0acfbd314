"""Requests to one API server: who asks, what is repeated, and what refusals mean.

A request that the server could not take (429, 5xx, no answer in time) is sent again after a wait, the server's own
where it names one; those that make something are safe to repeat because they carry its name. A refusal becomes one of
our errors, with the remedy. Bodies are plain data: the kinds here are mostly not the client's own.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kubernetes import client as kubernetes
from kubernetes import config as kubeconfig
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from cluster.errors import ConfigError, Conflict, Forbidden, NotFound, SkyreelsError, Unauthenticated, Unavailable
from cluster.kube.kinds import ACCESS_REVIEW, Kind, Manifest

MANAGER = "skyreels"
ATTEMPTS = 6
BACKOFF_S = 0.5
BACKOFF_MAX_S = 8.0
TIMEOUT_S = 15.0
CONFLICTS = 8  # how often a change is made anew on what somebody else wrote meanwhile
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
_PASSING = frozenset({429, 500, 502, 503, 504})
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
Object = dict[str, Any]
Query = list[tuple[str, str]]


class Expired(SkyreelsError):
    """A watch asked for changes that the server has forgotten; read everything again."""

    code = "gone"


class Cluster:
    """One API server as one user, and a namespace to work in."""

    def __init__(
        self, api: kubernetes.ApiClient, namespace: str, *, timeout_s: float = TIMEOUT_S, backoff_s: float = BACKOFF_S
    ) -> None:
        self._api = api
        self.namespace = namespace
        self._timeout_s = timeout_s
        self._backoff_s = backoff_s

    @classmethod
    def connect(
        cls,
        *,
        kubeconfig_path: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        timeout_s: float = TIMEOUT_S,
        backoff_s: float = BACKOFF_S,
    ) -> Cluster:
        """By a kubeconfig (the given one, `$KUBECONFIG`, `~/.kube/config`), else as the pod that this runs in.

        Raises:
            ConfigError: there is neither, or the kubeconfig has no such context.
        """
        settings = kubernetes.Configuration()
        settings.retries = False  # what is repeated is decided here
        try:
            kubeconfig.load_kube_config(kubeconfig_path, context=context, client_configuration=settings)
            contexts, active = kubeconfig.list_kube_config_contexts(kubeconfig_path)
            chosen = next((one for one in contexts if one["name"] == context), active)
            found = chosen["context"].get("namespace", "default")
        except ConfigException as error:
            if kubeconfig_path or context:
                raise ConfigError(f"The kubeconfig cannot be used: {error}.") from error
            try:
                kubeconfig.load_incluster_config(client_configuration=settings)
            except ConfigException as missing:
                raise ConfigError(
                    "There is no kubeconfig and this is no pod with a service account; set KUBECONFIG or --kubeconfig."
                ) from missing
            found = _IN_CLUSTER.read_text(encoding="ascii").strip()
        api = kubernetes.ApiClient(settings)
        return cls(api, namespace or found, timeout_s=timeout_s, backoff_s=backoff_s)

    def close(self) -> None:
        """Releases the connections."""
        self._api.close()

    # -- objects -----------------------------------------------------------------------------------------------
    def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object:
        """One object. NotFound."""
        return self._request("GET", kind.path(namespace or self.namespace, name), doing=f"get {kind.told} {name}")

    def find(self, kind: Kind, *, selector: str | None = None, everywhere: bool = False) -> list[Object]:
        """All of a kind in the namespace, or everywhere."""
        items: list[Object] = self._list(kind, selector, everywhere)["items"]
        return items

    def apply(self, manifest: Manifest, *, force: bool = False, dry_run: bool = False) -> Object:
        """Server-side apply: the server merges, and says who else owns a field that would change. Conflict."""
        kind = self.kind_of(manifest)
        name = manifest["metadata"]["name"]
        namespace = manifest["metadata"].get("namespace", self.namespace)
        query = [("fieldManager", MANAGER), *([("force", "true")] if force else [])]
        return self._request(
            "PATCH",
            kind.path(namespace, name),
            [*query, *([("dryRun", "All")] if dry_run else [])],
            body=manifest,
            content=APPLY,
            doing=f"patch {kind.told} {name}",
        )

    def completed(self, manifest: Manifest) -> Object:
        """The object as the server would store it anew, defaults filled in and unknown fields gone; nothing is stored.
        ConfigError when the server would refuse it.
        """
        kind = self.kind_of(manifest)
        namespace = manifest["metadata"].get("namespace", self.namespace)
        name = f"plan-{uuid.uuid4().hex[:12]}"  # beside the one that may exist
        body = {**manifest, "metadata": {"name": name}}
        query = [("dryRun", "All"), ("fieldManager", MANAGER)]
        found = self._request("POST", kind.path(namespace), query, body=body, doing=f"create {kind.told}")
        return {**found, "metadata": dict(manifest["metadata"])}

    def change(self, kind: Kind, name: str, make: Callable[[Object], Object | None]) -> Object:
        """A merge patch made from the object as it is, and made anew when somebody else was faster. Nothing is sent
        when `make` returns None.

        Raises:
            NotFound: there is no such object.
            Conflict: others were faster every time.
        """
        for _ in range(CONFLICTS):
            found = self.get(kind, name)
            patch = make(found)
            if patch is None:
                return found
            patch = {**patch, "metadata": {**patch.get("metadata", {}), **_version_of(found)}}
            try:
                return self._request(
                    "PATCH",
                    kind.path(self.namespace, name),
                    [("fieldManager", MANAGER)],
                    body=patch,
                    content=MERGE,
                    doing=f"patch {kind.told} {name}",
                )
            except Conflict:
                self._pause(0)
        raise Conflict(f"{kind.told} {name} is being changed by others all the time; try again later.")

    def watch(self, kind: Kind, name: str, *, timeout_s: float) -> Iterator[Object | None]:
        """An object as it is now and after each change, None when it is gone, until the time is over. A watch that the
        server ends or has forgotten is begun anew; no change is told twice in a row.
        """
        deadline = time.monotonic() + timeout_s
        version: str | None = None
        told: str | None = None
        while (left_s := deadline - time.monotonic()) > 0:
            if version is None:
                page = self._list(kind, None, False, [("fieldSelector", f"metadata.name={name}")])
                version = page["metadata"]["resourceVersion"]
                found = page["items"][0] if page["items"] else None
                now = None if found is None else found["metadata"]["resourceVersion"]
                if found is None or now != told:
                    told = now
                    yield found
                continue
            try:
                for event in self._stream(kind, name, version, min(left_s, 60.0)):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        told = None if event["type"] == "DELETED" else version
                        yield None if event["type"] == "DELETED" else event["object"]
            except Expired:
                version = None
            except (HTTPError, Unavailable):
                self._pause(0)

    def kind_of(self, manifest: Manifest) -> Kind:
        """Where a manifest's object lives, as the server says. ConfigError when it does not serve the kind."""
        group, _, version = str(manifest["apiVersion"]).rpartition("/")
        base = f"/apis/{group}/{version}" if group else f"/api/{version}"
        try:
            served = self._request("GET", base, doing=f"discover {manifest['apiVersion']}")["resources"]
        except NotFound:
            served = []
        for one in served:
            if one["kind"] == manifest["kind"] and "/" not in one["name"]:
                return Kind(group, version, one["name"], one["namespaced"])
        raise ConfigError(
            f"The server has no {manifest['kind']} in {manifest['apiVersion']}; install its CRD, or switch it off."
        )

    # -- the server --------------------------------------------------------------------------------------------
    def version(self) -> str:
        """As the server calls itself: v1.33.1"""
        return str(self._request("GET", "/version", doing="get the version")["gitVersion"])

    def may(self, verb: str, kind: Kind) -> bool:
        """Whether this user may do it in the namespace."""
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural}
        if kind.namespaced:
            attributes["namespace"] = self.namespace
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._request("POST", ACCESS_REVIEW.path(), body=body, doing="review access")
        return bool(answer["status"]["allowed"])

    # -- requests ----------------------------------------------------------------------------------------------
    def _list(self, kind: Kind, selector: str | None, everywhere: bool, query: Query | None = None) -> Object:
        query = [*(query or []), *([("labelSelector", selector)] if selector else [])]
        return self._request("GET", kind.path(None if everywhere else self.namespace), query, doing=f"list {kind.told}")

    def _stream(self, kind: Kind, name: str, version: str, timeout_s: float) -> Iterator[Object]:
        """Events of one watch, one JSON object a line. Expired, Unavailable; HTTPError when the connection breaks."""
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("fieldSelector", f"metadata.name={name}"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(max(1, round(timeout_s)))),
        ]
        path = kind.path(self.namespace)
        response = self._send("GET", path, query, None, None, f"watch {kind.told}", timeout_s + self._timeout_s)
        try:
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refused(event["object"].get("code", 500), event["object"], f"watch {kind.told}", None)
                yield event
        finally:
            response.close()
            response.release_conn()

    def _request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        *,
        body: object = None,
        content: str | None = None,
        doing: str,
    ) -> Object:
        """One answer, after as many attempts as it takes."""
        for attempt in range(ATTEMPTS):
            try:
                response = self._send(method, path, query or [], body, content, doing, self._timeout_s)
                answer: Object = json.loads(response.data)
                return answer
            except Unavailable as error:
                if attempt + 1 == ATTEMPTS:
                    raise
                self._pause(attempt, error.retry_after_s)
        raise AssertionError("unreachable")

    def _send(
        self,
        method: str,
        path: str,
        query: Query,
        body: object,
        content: str | None,
        doing: str,
        read_s: float,
    ) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content or "application/json"
        try:
            return self._api.call_api(
                path,
                method,
                query_params=query,
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(self._timeout_s, read_s),
            )
        except ApiException as error:
            raise _refused(error.status or 500, _status(error.body), doing, error.headers) from error
        except MaxRetryError as error:
            raise _unreachable(error.reason, doing) from error
        except HTTPError as error:
            raise _unreachable(error, doing) from error

    def _pause(self, attempt: int, asked_s: float = 0.0) -> None:
        """Doubled and spread; never shorter than the server asks for."""
        wait_s = min(self._backoff_s * 2**attempt, BACKOFF_MAX_S) * random.uniform(0.5, 1.0)  # noqa: S311
        time.sleep(max(wait_s, asked_s))


def _lines(response: Any) -> Iterator[bytes]:
    rest = b""
    for piece in response.stream(amt=None, decode_content=False):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line.strip())


def _version_of(found: Manifest) -> Object:
    return {"resourceVersion": found["metadata"]["resourceVersion"]}


def _status(body: object) -> Object:
    """The server's Status object, or an empty one for what proxies write."""
    try:
        status = json.loads(body) if isinstance(body, str | bytes) else None
    except ValueError:
        status = None
    return status if isinstance(status, dict) else {}


def _unreachable(reason: object, doing: str) -> SkyreelsError:
    if isinstance(reason, SSLError):
        return ConfigError(f"The API server's TLS is not accepted ({reason}); check the kubeconfig's certificates.")
    return Unavailable(f"The API server did not answer (to {doing}): {type(reason).__name__}.", retry_after_s=0.0)


def _refused(code: int, status: Object, doing: str, headers: Mapping[str, str] | None) -> SkyreelsError:  # noqa: PLR0911
    """What a refusal means, with the remedy."""
    message = str(status.get("message") or f"HTTP {code}")
    if code in _PASSING:
        asked = (headers or {}).get("Retry-After", "")
        return Unavailable(f"The API server cannot {doing} now: {message}", retry_after_s=_seconds(asked))
    if code == 401:
        return Unauthenticated(f"The API server does not accept the credentials (to {doing}); log in again.")
    if code == 403:
        return Forbidden(f"The user may not {doing}: {message}. Grant the verb, as the chart's operator role does.")
    if code == 404:
        return NotFound(f"Could not {doing}: {message}.")
    if code == 409:
        return Conflict(f"Could not {doing}: {message}")
    if code == 410:
        return Expired(message)
    if code == 422:
        causes = status.get("details", {}).get("causes", [])
        told = "; ".join(f"{cause.get('field', '?')}: {cause.get('message', '')}" for cause in causes)
        return ConfigError(f"The API server refuses to {doing}: {told or message}")
    return ConfigError(f"The API server refuses to {doing}: {message}")


def _seconds(text: str) -> float:
    return float(text) if text.isdigit() else 0.0

"""An API server over HTTP, without a cluster behind it: objects, versions, watches, field ownership, rights, CRDs.

Custom resources are checked and pruned by their definitions, as far as those are installed. Nothing reconciles them:
the tests play the operator. `inject` makes the next requests fail as servers and networks do.
"""

from __future__ import annotations

import copy
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.kube.custom import Definition, installed
from tests.kube.objects import Object, Owned, Owners, merge, selects

TOKEN = "let-me-in"
BUILT_IN = {  # group/version → plural: (kind, namespaced)
    "v1": {
        "pods": ("Pod", True),
        "events": ("Event", True),
        "nodes": ("Node", False),
        "configmaps": ("ConfigMap", True),
        "namespaces": ("Namespace", False),
        "persistentvolumeclaims": ("PersistentVolumeClaim", True),
    },
    "apps/v1": {"deployments": ("Deployment", True)},
    "storage.k8s.io/v1": {"storageclasses": ("StorageClass", False)},
    "apiextensions.k8s.io/v1": {"customresourcedefinitions": ("CustomResourceDefinition", False)},
    "authorization.k8s.io/v1": {"selfsubjectaccessreviews": ("SelfSubjectAccessReview", False)},
}
Key = tuple[str, str, str, str]  # group, plural, namespace, name


class Refusal(Exception):
    """Leaves as a Status object."""

    def __init__(self, code: int, reason: str, message: str, *, causes: list[Object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "status": "Failure"} | {
            "code": code, "reason": reason, "message": message, "details": {"causes": causes or []}
        }  # fmt: skip


@dataclass
class Fault:
    """What the next `times` matching requests get instead of an answer."""

    status: int | None = None  # None: no answer at all
    method: str | None = None
    path: str = ""
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    hang_s: float = 0.0
    before: bool = True  # False: the request has its effect, only its answer is lost
    act: Callable[[], object] | None = None  # what somebody else does first; then the request is answered as usual


@dataclass
class Request:
    """One parsed request."""

    method: str
    group: str
    version: str
    plural: str
    namespace: str
    name: str
    part: str  # a subresource
    query: dict[str, str]
    content: str
    body: Object


class KubeServer:
    """The server; a context manager. `url` and `kubeconfig` are for clients."""

    def __init__(self, version: str = "v1.33.1") -> None:
        self.version = version
        self.definitions: dict[tuple[str, str], Definition] = {}  # (group/version, plural)
        self.denied: set[tuple[str, str]] = set()  # (verb, plural), * for all
        self.requests: list[tuple[str, str]] = []  # method and path of each, in order
        self._faults: list[Fault] = []
        self._objects: dict[Key, Object] = {}
        self._owners: dict[Key, Owners] = {}
        self._log: list[tuple[int, str, Key, Object]] = []
        self._version = 1000
        self._forgotten = 0  # watches from before this version are refused
        self._changed = threading.Condition()
        self._closing = False

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, namespace: str = "video", token: str = TOKEN) -> str:
        named = {"clusters": "cluster", "users": "user"}
        parts: Object = {"server": self.url}, {"token": token}
        config: Object = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "c", "namespace": namespace}}],
        }  # fmt: skip
        for (plural, single), part in zip(named.items(), parts, strict=True):
            config[plural] = [{"name": "c", single: part}]
        return str(yaml.safe_dump(config))

    # -- for tests ---------------------------------------------------------------------------------------------
    def install(self, *names: str) -> None:
        """Definitions of tests/data/crds, by file name, and what serves them."""
        for definition in installed(*names):
            for version in definition.versions:
                self.definitions[f"{definition.group}/{version}", definition.plural] = definition
            self.create(definition.listed)

    def inject(self, **fault: Any) -> None:
        self._faults.append(Fault(**fault))

    def before(self, act: Callable[[], object], **fault: Any) -> None:
        """Somebody else is faster than the next matching requests."""
        self._faults.append(Fault(act=act, **fault))

    def forget_history(self) -> None:
        """As etcd does every few minutes: watches must begin at a new list."""
        with self._changed:
            self._version += 1
            self._forgotten = self._version
            self._log.clear()
            self._changed.notify_all()

    def create(self, manifest: Object, namespace: str = "video") -> Object:
        """By somebody else."""
        return self._write(self._of(manifest, namespace), manifest, "setup")

    def edit(self, manifest: Object, patch: Object, *, namespace: str = "video", manager: str = "somebody") -> Object:
        """A merge patch by somebody else; it may write the status too."""
        request = self._of(manifest, namespace)
        return self._write(request, merge(self._get(request), patch), manager, status=True)

    def remove(self, manifest: Object, namespace: str = "video") -> None:
        request = self._of(manifest, namespace)
        key = self._key(request)
        with self._changed:
            self._record("DELETED", key, self._objects.pop(key))
            self._owners.pop(key)

    def read(self, manifest: Object, namespace: str = "video") -> Object:
        return copy.deepcopy(self._get(self._of(manifest, namespace)))

    def _of(self, manifest: Object, namespace: str) -> Request:
        group, _, version = manifest["apiVersion"].rpartition("/")
        kinds = self.served(manifest["apiVersion"])
        plural, (_, scoped) = next((name, kind) for name, kind in kinds.items() if kind[0] == manifest["kind"])
        metadata = manifest["metadata"]
        where = metadata.get("namespace", namespace) if scoped else ""
        return Request("", group, version, plural, where, metadata["name"], "", {}, "", {})

    # -- answers -----------------------------------------------------------------------------------------------
    def fault(self, method: str, path: str) -> Fault | None:
        with self._changed:
            self.requests.append((method, path))
            for fault in self._faults:
                if fault.times > 0 and fault.method in {None, method} and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def served(self, api: str) -> dict[str, tuple[str, bool]]:
        """plural → (kind, namespaced) of a group version."""
        custom = {plural: (one.kind, True) for (version, plural), one in self.definitions.items() if version == api}
        return BUILT_IN.get(api, {}) | custom

    def answer(self, request: Request) -> Object:
        """Everything but watches. Refusal."""
        verb = self.verb(request)
        if request.plural == "selfsubjectaccessreviews":
            asked = request.body["spec"]["resourceAttributes"]
            return {**request.body, "status": {"allowed": not self.refuses(asked["verb"], asked["resource"])}}
        self.check(verb, request)
        if verb == "list":
            return self._list(request)
        if verb == "get":
            return self._get(request)
        if verb == "delete":
            found = self._get(request)
            self.remove(found, request.namespace)
            return found
        return self._change(verb, request)

    def _change(self, verb: str, request: Request) -> Object:
        manager = request.query.get("fieldManager", "unknown")
        with self._changed:
            if verb == "create":
                request.name = request.body["metadata"]["name"]
                if self._key(request) in self._objects:
                    raise Refusal(409, "AlreadyExists", f'{request.plural} "{request.name}" already exists')
                return self._write(request, request.body, manager)
            if request.content == "application/apply-patch+yaml":
                return self._apply(request, manager)
            if request.content != "application/merge-patch+json" and verb == "patch":
                raise Refusal(415, "UnsupportedMediaType", f"the body's type {request.content} is not supported")
            live = self._get(request)
            after = merge(live, request.body) if verb == "patch" else request.body
            asked = request.body.get("metadata", {}).get("resourceVersion")
            if asked is not None and asked != live["metadata"]["resourceVersion"]:
                message = f'Operation cannot be fulfilled on {request.plural} "{request.name}": it has been modified'
                raise Refusal(409, "Conflict", message)
            return self._write(request, after, manager)

    def verb(self, request: Request) -> str:
        if request.method == "GET":
            return "watch" if request.query.get("watch") == "true" else "get" if request.name else "list"
        return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[request.method]

    def refuses(self, verb: str, plural: str) -> bool:
        return bool({(verb, plural), (verb, "*"), ("*", plural)} & self.denied)

    def check(self, verb: str, request: Request) -> None:
        """404 for kinds that are not served, 403 for what the user may not."""
        if self.refuses(verb, request.plural):
            where = f' in the namespace "{request.namespace}"' if request.namespace else ""
            message = f'{request.plural} is forbidden: User "tester" cannot {verb} resource "{request.plural}"{where}'
            raise Refusal(403, "Forbidden", message)
        api = f"{request.group}/{request.version}".lstrip("/")
        if request.plural not in self.served(api):
            raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def events(self, request: Request) -> Iterator[Object]:
        """A watch: what changed since its version, as it comes; bookmarks while nothing does; 410 as an event."""
        since = int(request.query.get("resourceVersion") or self._version)
        end = time.monotonic() + float(request.query.get("timeoutSeconds", "60"))
        bookmarks = request.query.get("allowWatchBookmarks") == "true"
        while time.monotonic() < end:
            with self._changed:
                if since < self._forgotten:
                    refusal = Refusal(410, "Expired", f"too old resource version: {since} ({self._forgotten})")
                    yield {"type": "ERROR", "object": refusal.body}
                    return
                found = [entry for entry in self._log if entry[0] > since]
                newest = self._version
                if not found and not self._closing:
                    self._changed.wait(0.1)
                if self._closing:
                    return
            since = max([since, *(version for version, *_ in found)])
            for _, kind, key, thing in found:
                if key[:2] == (request.group, request.plural) and self._matches(request, key, thing):
                    yield {"type": kind, "object": thing}
            if bookmarks and not found:
                since = newest
                told = {"kind": "Bookmark", "apiVersion": "v1", "metadata": {"resourceVersion": str(newest)}}
                yield {"type": "BOOKMARK", "object": told}

    # -- objects -----------------------------------------------------------------------------------------------
    def _key(self, request: Request) -> Key:
        return request.group, request.plural, request.namespace, request.name

    def _get(self, request: Request) -> Object:
        found = self._objects.get(self._key(request))
        if found is None:
            raise Refusal(404, "NotFound", f'{request.plural}.{request.group} "{request.name}" not found')
        return found

    def _list(self, request: Request) -> Object:
        with self._changed:
            items = [
                thing
                for key, thing in sorted(self._objects.items())
                if key[:2] == (request.group, request.plural) and self._matches(request, key, thing)
            ]
            version = str(self._version)
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}

    def _matches(self, request: Request, key: Key, thing: Object) -> bool:
        if request.namespace and key[2] != request.namespace:
            return False
        for term in filter(None, request.query.get("fieldSelector", "").split(",")):
            name, _, value = term.partition("=")
            if {"metadata.name": key[3], "metadata.namespace": key[2]}.get(name) != value:
                return False
        selector = request.query.get("labelSelector")
        try:
            return not selector or selects(selector, thing["metadata"].get("labels", {}))
        except ValueError as error:
            raise Refusal(400, "BadRequest", str(error)) from error

    def _apply(self, request: Request, manager: str) -> Object:
        owners = copy.deepcopy(self._owners.get(self._key(request), Owners()))
        live = self._objects.get(self._key(request))
        if request.body["metadata"]["name"] != request.name:
            raise Refusal(400, "BadRequest", "the name of the object does not match the name on the URL")
        try:
            after = owners.applied(manager, live, request.body, force=request.query.get("force") == "true")
        except Owned as error:
            told = [f'conflict with "{name}": .{".".join(path)}' for name, path in error.conflicts]
            message = f"Apply failed with {len(told)} conflict(s): {'; '.join(told)}"
            causes = [
                {"reason": "FieldManagerConflict", "message": one, "field": one.partition(": ")[2]} for one in told
            ]
            raise Refusal(409, "Conflict", message, causes=causes) from error
        after.setdefault("metadata", {})["name"] = request.name
        return self._write(request, after, None, owners=owners)

    def _write(
        self,
        request: Request,
        after: Object,
        manager: str | None,
        *,
        status: bool = False,
        owners: Owners | None = None,
    ) -> Object:
        """Stores an object: checked, pruned, versioned. Nothing happens when it equals what is there."""
        key = self._key(request)
        with self._changed:
            live = self._objects.get(key)
            after = copy.deepcopy(after)
            api = f"{request.group}/{request.version}".lstrip("/")
            definition = self.definitions.get((api, request.plural))
            if definition is not None:
                if live is not None and not status:
                    after.pop("status", None)
                    after |= {"status": live["status"]} if "status" in live else {}
                after, causes = definition.stored(after, request.version, live)
                if causes:
                    message = f'{definition.kind} "{request.name}" is invalid'
                    raise Refusal(422, "Invalid", message, causes=causes)
            owners = owners or copy.deepcopy(self._owners.get(key, Owners()))
            if manager is not None:
                owners.updated(manager, live, after)
            metadata = after["metadata"]
            old = live["metadata"] if live else {"uid": str(uuid.uuid4()), "generation": 0, "resourceVersion": ""}
            metadata |= {name: old[name] for name in ("uid", "generation", "resourceVersion")}
            metadata["managedFields"] = owners.listed()
            if request.namespace:
                metadata["namespace"] = request.namespace
            if live == after:
                return live
            if live is None or live.get("spec") != after.get("spec"):
                metadata["generation"] = old["generation"] + 1
            if request.query.get("dryRun") == "All":
                return after
            self._objects[key], self._owners[key] = after, owners
            self._record("ADDED" if live is None else "MODIFIED", key, after)
            return after

    def _record(self, kind: str, key: Key, thing: Object) -> None:
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)
        self._log.append((self._version, kind, key, copy.deepcopy(thing)))
        self._changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: KubeServer

    def _serve(self) -> None:
        state = self.server_state
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = state.fault(self.command, self.path)
        if fault is not None and fault.act is not None:
            fault.act()
            fault = None
        if fault is not None and fault.before and self._fail(fault):
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._tell(401, Refusal(401, "Unauthorized", "Unauthorized").body)
        try:
            answer = self._answer(state, text)
        except Refusal as refusal:
            return self._tell(refusal.code, refusal.body)
        if fault is not None and self._fail(fault):
            return
        if answer is not None:
            self._tell(200, answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _answer(self, state: KubeServer, text: bytes) -> Object | None:
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        if parts == ["version"]:
            return {"gitVersion": state.version}
        if parts[0] == "api" and len(parts) >= 2:
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) >= 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        api = f"{group}/{version}".lstrip("/")
        if not rest:
            if not state.served(api):
                raise Refusal(404, "NotFound", "the server could not find the requested resource")
            resources = [{"name": n, "kind": k, "namespaced": s} for n, (k, s) in state.served(api).items()]
            return {"kind": "APIResourceList", "groupVersion": api, "resources": resources}
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        name, part = [*rest, "", ""][1:3]
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        content = (self.headers.get("Content-Type") or "").partition(";")[0]
        body = yaml.safe_load(text) if text else {}
        request = Request(self.command, group, version, rest[0], namespace, name, part, query, content, body)
        if state.verb(request) != "watch":
            return state.answer(request)
        state.check("watch", request)
        self._stream(state.events(request))
        return None

    def _fail(self, fault: Fault) -> bool:
        """True when the fault is the answer."""
        if fault.hang_s:
            time.sleep(fault.hang_s)
        if fault.status is None:
            self.close_connection = True
            return True
        self._tell(fault.status, Refusal(fault.status, "Injected", "injected by the test").body, fault.headers)
        return True

    def _tell(self, code: int, body: Object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        with suppress(ConnectionError):
            self.send_response(code)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def _stream(self, events: Iterator[Object]) -> None:
        with suppress(ConnectionError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in events:
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

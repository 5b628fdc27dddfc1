"""Azure Resource Manager as the SDK meets it, for agent pools of one managed cluster, over TLS on loopback.

Kept from the real service: ``PUT`` 201 with Azure-AsyncOperation, operations that are in progress, then over; a pool
whose creation failed stays until it is deleted; ETags and If-None-Match (412); 409 while an operation runs; pages; both
shapes of errors, ARM's ``{"error": …}`` and AKS's own flat ``{"code", "message", "subcode"}``. Error texts follow
MicrosoftDocs/azure-docs#62378, Azure/AKS#5808 and learn.microsoft.com/troubleshoot/azure/azure-kubernetes; where no
capture was at hand (AuthorizationFailed, OperationNotAllowed, SkuNotAvailable) the documentation's words.
"""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers import serving

Body = dict[str, Any]
POLLS_TO_END = 2  # an operation is over when it has been looked at so often
POOL = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/(?P<group>[^/]+)/providers/Microsoft\.ContainerService"
    r"/managedClusters/(?P<cluster>[^/]+)/agentPools(?:/(?P<pool>[^/]+))?",
    re.IGNORECASE,
)


RESERVED_LABEL = re.compile(r"(?!(kubelet|node)\.)([^/]+\.)?(kubernetes|k8s)\.io/")


@dataclass
class Answer:
    """What the service answers."""

    status: int
    body: Body | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """One request."""

    method: str
    pool: str
    body: Body
    number: int  # of this method, counted from 1


Fault = Callable[[Asked], "Answer | None"]  # an answer instead of the service's; None: it goes on
OperationFault = Callable[[str, Body], "Body | None"]  # (verb, properties of the pool) -> the operation's error


def arm_error(code: str, message: str, details: list[Body] | None = None) -> Body:
    """Return ARM's envelope."""
    return {"error": {"code": code, "message": message, **({"details": details} if details else {})}}


def aks_error(code: str, message: str, subcode: str = "") -> Body:
    """Return the flat body of AKS itself."""
    return {"code": code, "details": None, "message": message, "subcode": subcode}


class FakeArm:
    """One managed cluster, ``team/aks``."""

    def __init__(self) -> None:
        self.pools: dict[str, Body] = {}
        self.asked: list[tuple[str, str]] = []  # (method, pool)
        self.fault: Fault = lambda asked: None
        self.operation_fault: OperationFault = lambda verb, properties: None
        self.on_ready: Callable[[str, Body], None] = lambda name, properties: None
        self.stuck = False
        self.url = ""
        self._operations: dict[str, Body] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    def handle(self, method: str, path: str, headers: dict[str, str], body: Body) -> Answer:
        """Answer one request."""
        url = urlsplit(path)
        operation = re.search(r"/operations/([^/]+)$", url.path)
        with self._lock:
            if not headers.get("authorization", "").startswith("Bearer "):
                return Answer(401, arm_error("AuthenticationFailed", "The 'Authorization' header is missing."))
            if operation:
                return self._poll(operation[1])
            found = POOL.fullmatch(url.path)
            if found is None or "api-version" not in parse_qs(url.query):
                return Answer(
                    404, arm_error("InvalidResourceType", f"The resource type could not be found: {url.path}")
                )
            pool = found["pool"] or ""
            self.asked.append((method, pool))
            times = sum(1 for before, _ in self.asked if before == method)
            instead = self.fault(Asked(method, pool, body, times))
            if instead is not None:
                return instead
            if (found["group"], found["cluster"]) != ("team", "aks"):
                return Answer(404, arm_error("ParentResourceNotFound", "the parent resource could not be found."))
            return getattr(self, f"_{method.lower()}")(pool, headers, body, url.query)

    def _get(self, pool: str, headers: dict[str, str], body: Body, query: str) -> Answer:
        if not pool:
            names = sorted(self.pools)
            start = int(parse_qs(query).get("$skip", ["0"])[0])
            page: Body = {"value": [self._view(name) for name in names[start : start + 2]]}
            if start + 2 < len(names):
                page["nextLink"] = f"{self.url}{self._root}/agentPools?api-version=2025-01-01&$skip={start + 2}"
            return Answer(200, page)
        if pool not in self.pools:
            return Answer(404, aks_error("NotFound", f"Could not find the agent pool: {pool}"))
        return Answer(200, self._view(pool), {"ETag": self.pools[pool]["eTag"]})

    def _put(self, pool: str, headers: dict[str, str], body: Body, query: str) -> Answer:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,11}", pool):
            return Answer(
                400, aks_error("InvalidParameter", "Agent pool name is invalid. See https://aka.ms/aks-naming-rules")
            )
        labels = body["properties"].get("nodeLabels") or {}
        if reserved := [key for key in labels if RESERVED_LABEL.match(key)]:  # Azure/AKS#2866, #4613
            said = f"Label key {reserved[0]} is not allowed: kubernetes.io and k8s.io are reserved prefixes."
            return Answer(400, aks_error("BadRequest", said))
        if pool in self.pools and headers.get("if-none-match") == "*":
            return Answer(412, aks_error("PreconditionFailed", "the resource already exists"))
        if self._busy(pool):
            return self._not_now(pool)
        tag = str(next(self._numbers))
        properties = {**body["properties"], "provisioningState": "Creating"}
        if properties.get("scaleSetPriority") == "Spot":  # the service adds these itself
            properties["nodeLabels"] = {**properties["nodeLabels"], "kubernetes.azure.com/scalesetpriority": "spot"}
            properties["nodeTaints"] = [
                *properties["nodeTaints"],
                "kubernetes.azure.com/scalesetpriority=spot:NoSchedule",
            ]
        self.pools[pool] = {"properties": properties, "eTag": tag}
        return Answer(201, self._view(pool), self._launched("Create", pool))

    def _delete(self, pool: str, headers: dict[str, str], body: Body, query: str) -> Answer:
        if pool not in self.pools:
            return Answer(204)
        if self._busy(pool):
            return self._not_now(pool)
        self.pools[pool]["properties"]["provisioningState"] = "Deleting"
        return Answer(202, None, self._launched("Delete", pool))

    def _busy(self, pool: str) -> bool:
        return any(o["pool"] == pool and o["status"] == "InProgress" for o in self._operations.values())

    def _not_now(self, pool: str) -> Answer:
        said = f"Operation is not allowed because there's an in progress operation on the agent pool {pool}."
        return Answer(409, aks_error("OperationNotAllowed", said, "AnotherOperationInProgress"))

    _root = "/subscriptions/s/resourceGroups/team/providers/Microsoft.ContainerService/managedClusters/aks"

    def _view(self, name: str) -> Body:
        pool = self.pools[name]
        return {
            "id": f"{self._root}/agentPools/{name}", "name": name,
            "type": "Microsoft.ContainerService/managedClusters/agentPools",
            "properties": {**pool["properties"], "eTag": pool["eTag"]},
        }  # fmt: skip

    def _launched(self, verb: str, pool: str) -> dict[str, str]:
        number = f"op-{next(self._numbers)}"
        self._operations[number] = {"verb": verb, "pool": pool, "status": "InProgress", "polls": 0}
        place = f"{self.url}/subscriptions/s/providers/Microsoft.ContainerService/locations/eastus/operations/{number}"
        return {"Azure-AsyncOperation": f"{place}?api-version=2016-03-30"}

    def _poll(self, number: str) -> Answer:
        operation = self._operations.get(number)
        if operation is None:
            return Answer(404, arm_error("NotFound", "The entity was not found."))
        operation["polls"] += 1
        if operation["status"] == "InProgress" and operation["polls"] >= POLLS_TO_END and not self.stuck:
            self._end(operation)
        told = {"name": number, "status": operation["status"], "startTime": "2026-11-25T00:00:00Z"}
        if "error" in operation:
            told["error"] = operation["error"]
        return Answer(200, told, {"Retry-After": "0"})

    def _end(self, operation: Body) -> None:
        pool, verb = operation["pool"], operation["verb"]
        properties = self.pools[pool]["properties"]
        error = self.operation_fault(verb, properties)
        if error is not None:
            state = "Canceled" if error["code"] == "Canceled" else "Failed"
            operation |= {"status": state, "error": error}
            properties |= {"provisioningState": state, "status": {"provisioningError": error}}
        elif verb == "Delete":
            operation["status"] = "Succeeded"
            del self.pools[pool]
        else:
            operation["status"] = "Succeeded"
            properties["provisioningState"] = "Succeeded"
            self.on_ready(pool, properties)

    @contextmanager
    def serving(self, certificate: Path, key: Path) -> Iterator["FakeArm"]:
        """Serve on TLS."""
        arm = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                answer = arm.handle(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                data = b"" if answer.body is None else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_PUT = do_DELETE = do_GET  # noqa: N815  (http.server's names)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        with serving(Handler, certificate=certificate, key=key) as port:
            self.url = f"https://localhost:{port}"
            yield self

"""Many Workspaces on a real API server, changes of their Workflows, and when each is seen in a status."""

import asyncio
import time
from collections import defaultdict

from controller.kube_api import Api
from controller.reflector import Reflector
from pipelines.nodes import node_id
from tests.cluster.argo import ARGO

WORKSPACES = "/apis/kaito.sh/v1beta1"


class Crowd:
    """Many Workspaces and their Workflows, and what is seen of the statuses."""

    def __init__(self, api: Api, namespace: str, count: int) -> None:
        self.api, self.namespace = api, namespace
        self.names = [f"w{number}" for number in range(count)]
        self.runs: dict[str, str] = {}
        self.waiting: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.shown: dict[str, int] = {}
        self.lags: list[float] = []
        self.writes = 0
        path = f"{WORKSPACES}/namespaces/{namespace}/workspaces"
        self.reflector = Reflector(api, path, lambda body: body, self._changed)

    def _changed(self, before, after) -> None:
        if before is None or after is None or before.get("status") == after.get("status"):
            return
        self.writes += 1
        name, now = after["metadata"]["name"], time.monotonic()
        tune = next((s for s in after["status"].get("steps", ()) if s["name"] == "tune"), {})
        done = int((tune.get("progress") or "0/0").partition("/")[0])
        self.shown[name] = done
        due = [(number, at) for number, at in self.waiting[name] if number <= done]
        self.lags += [now - at for _, at in due]
        self.waiting[name] = [(number, at) for number, at in self.waiting[name] if number > done]

    async def make(self) -> None:
        """Create the Workspaces."""
        gate = asyncio.Semaphore(16)

        async def one(name: str) -> None:
            body = {
                "apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": name},
                "resource": {"labelSelector": {"matchLabels": {"app": name}}},
                "tuning": {
                    "preset": {"name": "smollm2-135m-instruct"}, "method": "qlora",
                    "input": {"urls": ["https://data.example.com/a.jsonl"]},
                    "output": {"image": f"r.example.com/team/{name}:1", "imagePushSecret": "registry-login"},
                },
            }  # fmt: skip
            async with gate:
                await self.api.create(f"{WORKSPACES}/namespaces/{self.namespace}/workspaces", body)

        await asyncio.gather(*map(one, self.names))

    async def runs_made(self) -> None:
        """Wait until every Workspace has its Workflow."""
        while True:
            async for page in self.api.pages(f"{ARGO}/namespaces/{self.namespace}/workflows", {"limit": "500"}):
                for body in page["items"]:
                    self.runs[body["metadata"]["labels"]["kaito.sh/workspace"]] = body["metadata"]["name"]
            if len(self.runs) == len(self.names):
                return
            await asyncio.sleep(0.5)

    async def change(self, name: str, number: int) -> None:
        """Let a Workflow's tune step be at ``number``."""
        run = self.runs[name]
        began = {"type": "Pod", "startedAt": "2026-11-25T00:00:00Z"}
        nodes = {}
        for task, phase in (("fetch", "Succeeded"), ("provision", "Succeeded"), ("weights", "Succeeded")):
            nodes[node_id(run, f"{run}.{task}")] = {"name": f"{run}.{task}", "phase": phase, **began}
        tune = f"{run}.tune"
        nodes[node_id(run, tune)] = {
            "name": tune, "phase": "Running", **began, "progress": f"{number}/1000000", "type": "Container",
        }  # fmt: skip
        status = {"phase": "Running", "startedAt": "2026-11-25T00:00:00Z", "nodes": nodes}
        await self.api.merge(f"{ARGO}/namespaces/{self.namespace}/workflows/{run}", {"status": status})
        if self.shown.get(name, 0) >= number:  # before the answer to our own writing has come
            self.lags.append(0.0)
        else:
            self.waiting[name].append((number, time.monotonic()))

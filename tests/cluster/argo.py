"""A stand-in for Argo's controller, for tests alone: the local engine, attached to the API server.

It takes Workflows that have no phase yet, runs them, and writes their status as Argo does (no subresource). The steps
are pods, as with Argo, or, for tests of the controller, canned: each writes what it was told to and ends.
"""

import json
import shlex
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.local import LocalEngine
from presets.errors import KaiflowError
from steps.cluster import Cluster
from tests.cluster import step_pod

ARGO = "/apis/argoproj.io/v1alpha1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
OUTPUTS = {
    "fetch": {"dataset": "sha256:d", "rows": "10", "held-out-rows": "2", "changed": "true", "published": ""},
    "provision": {"nodes": "node-1", "instance-type": "", "attempts": "[]"},
    "weights": {"weights": "sha256:w"},
    "tune": {"run": "sha256:r", "base-loss": "2.5", "tuned-loss": "1.5", "steps": "4/4", "against-published": ""},
    "push": {"image": "r.example.com/a:1", "digest": "sha256:" + "1" * 64, "verdict": "passed"},
    "deploy": {"endpoint": "http://ws.svc", "model": "ws"},
    "release": {"released": "nothing was held"},
}


def argo_crd(kind: str) -> dict[str, Any]:
    """Return Argo's minimal CRD of a kind: no status subresource."""
    plural = f"{kind.lower()}s"
    version = {
        "name": "v1alpha1", "served": True, "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {**ANYTHING, "x-kubernetes-map-type": "atomic"}, "status": ANYTHING,
        }}},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.argoproj.io"},
        "spec": {
            "group": "argoproj.io", "scope": "Namespaced", "versions": [version],
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
        },
    }  # fmt: skip


class Argo:
    """Runs Workflows, as they come, until it is closed."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, *, canned: bool = True) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.outputs: dict[str, dict[str, str]] = {verb: dict(told) for verb, told in OUTPUTS.items()}
        self.failing: dict[str, str] = {}  # step -> termination message
        self.seconds = 0.0  # that each canned step takes
        self.seconds_of: dict[str, float] = {}
        self.parameters: dict[str, str] = {}
        self.started: list[str] = []  # uids of the Workflows that were run
        self.asked: dict[str, tuple[str, str, str]] = {}  # uid -> Workspace, Workflow, what it was asked for
        self._canned = canned
        self.pods = True  # whether steps that are not canned are pods; processes of this machine otherwise
        self._folder = folder
        self._engines: dict[str, LocalEngine] = {}
        self._threads: list[threading.Thread] = []
        self._done = threading.Event()

    def __enter__(self) -> "Argo":
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for engine in self._engines.values():
            engine.stop()
        for thread in self._threads:
            thread.join(60)

    def workflows(self) -> list[dict[str, Any]]:
        """Return the Workflows that are there."""
        return self.cluster.list(f"{ARGO}/namespaces/{self.namespace}/workflows")

    def tick(self, cron: str) -> str:
        """Start the CronWorkflow's Workflow, as its time had come; return the name."""
        path = f"{ARGO}/namespaces/{self.namespace}/cronworkflows/{cron}"
        body = self.cluster.get(path)
        assert body is not None
        name = f"{cron}-{int(time.time() * 1000) % 10**9}"
        labels = {**body["spec"]["workflowMetadata"]["labels"], "workflows.argoproj.io/cron-workflow": cron}
        workflow = {
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "spec": body["spec"]["workflowSpec"],
        }  # fmt: skip
        self.cluster.apply(f"{ARGO}/namespaces/{self.namespace}/workflows/{name}", workflow)
        return name

    def _loop(self) -> None:
        while not self._done.is_set():
            workflows: list[dict[str, Any]] = []
            with suppress(KaiflowError):  # an API server that is away comes back
                workflows = self.workflows()
            for workflow in workflows:
                self._take(workflow)
            time.sleep(0.05)

    def _take(self, workflow: dict[str, Any]) -> None:
        uid = workflow["metadata"]["uid"]
        stopped = bool(workflow["spec"].pop("shutdown", None))
        if stopped and uid in self._engines:
            self._engines[uid].stop()
        if (workflow.get("status") or {}).get("phase") or uid in self._engines:
            return
        self.started.append(uid)
        labels = workflow["metadata"]["labels"]
        self.asked[uid] = (
            labels.get("kaito.sh/workspace", ""),
            workflow["metadata"]["name"],
            labels.get("kaiflow.dev/asked", uid),
        )
        folder = self._folder / uid
        for part in ("pods", "logs", "work"):
            (folder / part).mkdir(parents=True)
        told = {"workdir": str(folder / "work"), **self.parameters}
        for parameter in workflow["spec"]["arguments"]["parameters"]:
            parameter["value"] = told.get(parameter["name"], parameter["value"])
        for template in workflow["spec"]["templates"]:
            if "container" in template:
                self._replace(workflow, template, folder)
        path = f"{ARGO}/namespaces/{self.namespace}/workflows/{workflow['metadata']['name']}"

        def write(now: dict[str, Any]) -> None:
            for _ in range(20):  # an API server that is away comes back
                with suppress(KaiflowError):
                    self.cluster.patch(path, {"status": now["status"]})
                    return
                time.sleep(0.5)

        engine = LocalEngine(workflow, folder / "pods", folder / "logs", write)
        self._engines[uid] = engine
        if stopped:  # before it began: its exit handler runs all the same
            engine.stop()
        thread = threading.Thread(target=engine.run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _replace(self, workflow: dict[str, Any], template: dict[str, Any], folder: Path) -> None:
        if self._canned:
            self._can(template, folder / "work")
        elif self.pods:
            self._as_pod(workflow, template, folder)

    def _can(self, template: dict[str, Any], work: Path) -> None:
        """Let a step write what it was told to."""
        verb = template["name"]
        folder = work / verb / "outputs"
        told = {"cached": "false", **self.outputs[verb]}
        lines = [f"mkdir -p {folder}"]
        if verb in self.failing:
            lines.append(f'printf %s {shlex.quote(self.failing[verb])} > "$KAIFLOW_TERMINATION_LOG"; exit 65')
        else:
            lines.append(f"sleep {self.seconds_of.get(verb, self.seconds)}")
        lines += [f"printf %s {shlex.quote(value)} > {folder}/{name}" for name, value in told.items()]
        template["container"] = {
            key: value for key, value in template["container"].items() if key in ("name", "image")
        } | {"command": ["sh", "-c"], "args": ["; ".join(lines)]}

    def _as_pod(self, workflow: dict[str, Any], template: dict[str, Any], folder: Path) -> None:
        """Let a step be a pod."""
        verb, body = template["name"], step_pod.pod_of(workflow, template)
        body["metadata"] |= {"namespace": self.namespace, "generateName": f"{workflow['metadata']['name']}-{verb}-"}
        path = folder / f"{verb}.json"
        path.write_text(json.dumps(body))
        template["container"] = {
            "image": template["container"]["image"],
            "command": [sys.executable, step_pod.__file__],
            "args": [str(path), str(folder / "work"), verb],
        }


def as_json(body: object) -> str:
    """Return the object as text, for comparing."""
    return json.dumps(body, sort_keys=True)

"""The Workspaces of a cluster, as the commands ask for them: over the API server, with the caller's own rights."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from controller.following import last
from controller.observed_steps import ENDED
from controller.output import write
from controller.state import WorkspaceNotFoundError
from pipelines.names import STOP, is_cleanup
from presets.errors import ConfigError, UnavailableError, did_you_mean, nearest
from steps.cluster import Cluster
from steps.contract import WORKSPACE_LABEL

Workspace = dict[str, Any]
API = "/apis/kaito.sh/v1beta1"
WORKFLOWS = "/apis/argoproj.io/v1alpha1"
COMPONENT = "app.kubernetes.io/component"
RUN_OF_POD = "workflows.argoproj.io/workflow"  # Argo's
POLL_SECONDS = 1.0
ANSWER_SECONDS = 300.0
MANAGER = "kaiflow-cli"


class ClusterPlace:
    """One namespace of a cluster."""

    def __init__(self, cluster: Cluster, namespace: str | None) -> None:
        self._cluster = cluster
        self.namespace = namespace or cluster.namespace

    @property
    def words(self) -> str:
        """What it is called."""
        return f"the namespace {self.namespace}"

    def _path(self, name: str) -> str:
        return f"{API}/namespaces/{self.namespace}/workspaces/{name}"

    def apply(self, body: dict[str, Any], *, dry_run: bool) -> Workspace:
        """Apply a Workspace, or a ConfigMap beside it, server-side."""
        kind, name = body["kind"], body["metadata"]["name"]
        if kind == "Workspace":
            path = f"/apis/{body['apiVersion']}/namespaces/{self.namespace}/workspaces/{name}"
        else:
            path = f"/api/v1/namespaces/{self.namespace}/configmaps/{name}"
        placed = {**body, "metadata": {**body["metadata"], "namespace": self.namespace}}
        return self._cluster.apply(path, placed, manager=MANAGER, dry_run=dry_run)

    def workspaces(self, labels: Mapping[str, str], *, everywhere: bool) -> list[Workspace]:
        """Return the Workspaces with the labels, of all namespaces where that is asked for.

        Raises:
            ConfigError: the cluster does not know the kind.
        """
        namespaced = "" if everywhere else f"/namespaces/{self.namespace}"
        found = self._cluster.list(f"{API}{namespaced}/workspaces", labels)
        if not found and self._cluster.get(API) is None:
            raise ConfigError(
                "WorkspacesUnknown",
                "This cluster does not know Workspaces.",
                fix="Install the chart, or the CRD alone.",
            )
        return found

    def read(self, name: str) -> Workspace:
        """Return a Workspace.

        Raises:
            WorkspaceNotFoundError: there is none; the message names the nearest.
        """
        found = self._cluster.get(self._path(name))
        if found is None:
            near = nearest(name, [body["metadata"]["name"] for body in self.workspaces({}, everywhere=False)])
            fix = f"Did you mean {' or '.join(near)}?" if near else "`kubectl kaiflow get` lists what is there."
            raise WorkspaceNotFoundError(
                "WorkspaceNotFound", f"There is no Workspace {name!r} in {self.words}.", fix=fix
            )
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the Events of a Workspace, oldest first."""
        fields = {"involvedObject.kind": "Workspace", "involvedObject.name": name}
        found = self._cluster.list(f"/api/v1/namespaces/{self.namespace}/events", fields=fields)
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    def logs(self, name: str, step: str | None, *, follow: bool, tail: int | None) -> None:
        """Print the logs of the newest run's pods, of each the last ``tail`` lines.

        Raises:
            WorkspaceNotFoundError: there is no such Workspace, or no pod of that step.
        """
        printed: dict[str, int] = {}
        while True:
            workspace = self.read(name)
            pods = self._pods(name, step, workspace.get("status", {}).get("workflow", ""))
            if not pods and not (follow and _running(workspace)):
                raise self._no_pod(workspace, step)
            for pod in pods:
                self._print_new(pod, printed, tail, prefixed=len(pods) > 1)
            if not (follow and _running(workspace)):
                return
            time.sleep(POLL_SECONDS)

    def _pods(self, name: str, step: str | None, run: str) -> list[dict[str, Any]]:
        """Return the pods of the run, and the server's; those that failed in runs before are there for a while."""
        labels = {WORKSPACE_LABEL: name, **({COMPONENT: step} if step else {})}
        found = self._cluster.list(f"/api/v1/namespaces/{self.namespace}/pods", labels)
        of_run = [pod for pod in found if pod["metadata"]["labels"].get(RUN_OF_POD, run) == run]
        return sorted(of_run, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def _no_pod(self, workspace: Workspace, step: str | None) -> WorkspaceNotFoundError:
        known = [s["name"] for s in workspace.get("status", {}).get("steps", ())]
        fix = "Pods that have succeeded are removed; Argo's own archive has their logs where it is set up."
        if step and step not in known:
            fix = did_you_mean(step, known, f"Its steps are {', '.join(known)}." if known else fix)
        what = f"There is no pod of {step or 'any step'} of {workspace['metadata']['name']} now."
        return WorkspaceNotFoundError("StepNotFound", what, fix=fix)

    def _print_new(self, pod: dict[str, Any], printed: dict[str, int], tail: int | None, *, prefixed: bool) -> None:
        name = pod["metadata"]["name"]
        component = pod["metadata"]["labels"].get(COMPONENT, "")
        container = "server" if component == "server" else "main"
        text = self._cluster.text(f"/api/v1/namespaces/{self.namespace}/pods/{name}/log", {"container": container})
        if text is None:
            return  # not to be had yet, or not now: the next look goes on where this would have
        lines = text.splitlines()
        new = lines[printed[name] :] if name in printed else last(lines, tail)
        for line in new:
            write(f"{component:<10}{line}" if prefixed else line)
        printed[name] = len(lines)

    def ask(self, name: str, prompt: str, model: str | None) -> Iterator[str]:
        """Yield the answer, asked through the API server: no port need be open.

        Raises:
            UnavailableError: nothing serves, or the server does not answer.
        """
        if not self.read(name).get("status", {}).get("endpoint"):
            raise UnavailableError("NotServing", f"{name} is not served now.", fix=f"kubectl kaiflow why {name}")
        body = {"prompt": prompt, **({"model": model} if model else {})}
        path = f"/api/v1/namespaces/{self.namespace}/services/http:{name}:80/proxy/chat"
        try:
            answer = self._cluster.ask_once(path, body, ANSWER_SECONDS)
        except ConfigError as error:
            raise UnavailableError("ServerRefused", error.message, fix="Read the server's log.") from error
        yield str(answer.get("Result", ""))

    def stop(self, name: str) -> list[str]:
        """Stop the runs that go on; return what was stopped, in words."""
        self.read(name)
        path = f"{WORKFLOWS}/namespaces/{self.namespace}/workflows"
        stopped = []
        for run in self._cluster.list(path, {WORKSPACE_LABEL: name}):
            ended = (run.get("status") or {}).get("phase") in ENDED
            if not ended and not is_cleanup(run["metadata"]):
                self._cluster.patch(f"{path}/{run['metadata']['name']}", STOP)
                stopped.append(f"the run {run['metadata']['name']}")
        return stopped

    def delete(self, name: str) -> None:
        """Delete the Workspace; the controller stops its run and gives its nodes back."""
        self.read(name)
        self._cluster.delete(self._path(name))


def _running(workspace: Workspace) -> bool:
    return workspace.get("status", {}).get("state") in (None, "Pending", "Running")

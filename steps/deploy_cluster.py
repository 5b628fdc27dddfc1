"""The served model on a cluster: its objects applied, waited for, and asked a real question through its Service."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from presets.errors import ConfigError, KaiflowError, UnavailableError
from presets.manifest import without_nulls
from presets.recipe import DeployRecipe
from presets.serving_place import ServingPlace
from steps import logs
from steps.cluster import Cluster
from steps.contract import MANAGED_BY, WORKSPACE_LABEL, Context, Request, Result
from steps.node_keeping import is_rolled_out
from steps.node_provisioner import Clock
from steps.server_answer import answers
from steps.serving_files import Served
from steps.serving_objects import PORT, objects, selector

POLL_SECONDS = 2.0
READY_SECONDS = 3300  # less than the step's own deadline, so that the step can say what was missing
ROUTE_SECONDS = 120
RESTARTS = 3  # of a server that cannot start: so many and it is given up
HOPELESS = ("InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull")


def deploy(request: Request, context: Context, cluster: Cluster, clock: Clock) -> Result:
    """Serve the adapter of ``inputs.run``; what serves already goes on until the new one answers.

    Raises:
        UnavailableError: it does not come up; the message says what its pods say.
        TryAgainError: it is up and does not answer.
    """
    recipe, place = request.part("deploy", DeployRecipe), request.part("place", ServingPlace)
    served = Served.of(request, "0.0.0.0", PORT)  # noqa: S104  (a pod's own address)
    digests = {"kaiflow.dev/adapter": served.run, "kaiflow.dev/base": served.weights}
    before = cluster.get(_path(request, "deployments"))
    for path, body in objects(request.workspace, served, place, recipe.replicas, request.inputs["workflow"], digests):
        _require_own(cluster.get(path), path, request)
        cluster.apply(path, body)
        logs.event("applied", kind=body["kind"], object=path)
    if recipe.replicas == 1:
        _remove_budget(request, cluster)
    try:
        _wait(request, context, cluster, clock, recipe.replicas, digests)
        service = cluster.get(_path(request, "services", group="api/v1")) or {}
        _require_answer(f"http://{_host(service['spec']['clusterIP'])}", clock)
    except BaseException:  # a run that is stopped too: its node goes, and the template must not name it
        _return_to(before, request, cluster, digests)
        raise
    name, namespace = request.workspace.name, request.workspace.namespace
    endpoint = f"http://{name}.{namespace}.svc.cluster.local"
    logs.event("serving", endpoint=endpoint, adapter=served.run)
    return Result(outputs={"endpoint": endpoint, "model": name, "cached": "false"}, figures=asdict(recipe))


def _return_to(
    before: Mapping[str, Any] | None, request: Request, cluster: Cluster, digests: Mapping[str, str]
) -> None:
    """Let the Deployment be that of the servers that answer: one of them that is lost would not come back otherwise."""
    template = ((before or {}).get("spec") or {}).get("template", {}).get("metadata", {}).get("annotations") or {}
    if before is None or digests.items() <= template.items():
        return
    kept = ("name", "namespace", "labels", "ownerReferences")
    metadata = {key: value for key, value in before["metadata"].items() if key in kept}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": before["spec"]}
    cluster.apply(_path(request, "deployments"), without_nulls(body))  # older API servers print some
    logs.event("returned", adapter=template.get("kaiflow.dev/adapter", ""))


def _remove_budget(request: Request, cluster: Cluster) -> None:
    """Remove the budget of an earlier revision with more replicas: of a single pod it would let none be moved."""
    path = _path(request, "poddisruptionbudgets", group="apis/policy/v1")
    there = cluster.get(path)
    if there is not None and _is_own(there, request):
        cluster.delete(path)
        logs.event("removed", kind="PodDisruptionBudget", object=path)


def _require_answer(address: str, clock: Clock) -> None:
    """Return when the server answers through its Service, whose address leads to a new pod a little later.

    Raises:
        TryAgainError: it does not.
    """
    until = clock.now() + ROUTE_SECONDS
    while (problem := answers(address)) is not None:
        if clock.now() > until:
            raise problem
        clock.sleep(POLL_SECONDS)


def _host(address: str) -> str:
    if address in ("", "None"):
        raise ConfigError("ServiceWithoutAddress", "The Service has no address.", fix="Let it be of type ClusterIP.")
    return f"[{address}]" if ":" in address else address


def _path(request: Request, kind: str, group: str = "apis/apps/v1") -> str:
    return f"/{group}/namespaces/{request.workspace.namespace}/{kind}/{request.workspace.name}"


def _require_own(there: Mapping[str, Any] | None, path: str, request: Request) -> None:
    """Return when nothing of that name is there, or what is there is this Workspace's.

    Raises:
        ConfigError: it is somebody else's, which is not ours to change.
    """
    if there is not None and not _is_own(there, request):
        raise ConfigError(
            "NameTaken", f"{path} is there already and was not made for this Workspace.",
            fix="Give the Workspace another name, or remove that object.",
        )  # fmt: skip


def _is_own(there: Mapping[str, Any], request: Request) -> bool:
    own = {**MANAGED_BY, WORKSPACE_LABEL: request.workspace.name}
    return own.items() <= (there["metadata"].get("labels") or {}).items()


def _wait(
    request: Request, context: Context, cluster: Cluster, clock: Clock, replicas: int, digests: Mapping[str, str]
) -> None:
    """Return when all pods are those of the new template, and ready."""
    until, said = clock.now() + READY_SECONDS, ""
    while True:
        deployment = cluster.get(_path(request, "deployments"))
        if deployment is None:
            raise UnavailableError("DeploymentDeleted", "Somebody has deleted the Deployment.", fix="Run it again.")
        ready = _ready(deployment)
        context.progress(ready, replicas)
        if is_rolled_out(deployment):
            return
        problem = _problem(cluster, request, digests)
        if problem is not None and (problem[1] or clock.now() > until):
            raise problem[0]
        if clock.now() > until:
            raise UnavailableError(
                "ServerSlow", f"{ready} of {replicas} servers were ready in time.", fix="Read the server's log."
            )
        words = problem[0].message if problem else f"{ready} of {replicas} servers are ready"
        if words != said:
            logs.event("waiting", on=words)
            said = words
        clock.sleep(POLL_SECONDS)


def _ready(deployment: Mapping[str, Any]) -> int:
    status = deployment.get("status") or {}
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return 0
    return min(int(status.get("updatedReplicas") or 0), int(status.get("availableReplicas") or 0))


def _problem(cluster: Cluster, request: Request, digests: Mapping[str, str]) -> tuple[KaiflowError, bool] | None:
    """Return what keeps a new pod from being ready, and whether waiting is no use; None while nothing is wrong."""
    path = f"/api/v1/namespaces/{request.workspace.namespace}/pods"
    pods = cluster.list(path, selector(request.workspace))
    new = [pod for pod in pods if digests.items() <= (pod["metadata"].get("annotations") or {}).items()]
    found = [problem for pod in new if (problem := pod_problem(pod)) is not None]
    return max(found, key=lambda problem: problem[1]) if found else None


def pod_problem(pod: Mapping[str, Any]) -> tuple[KaiflowError, bool] | None:
    """Return what keeps one pod from being ready, and whether waiting is no use."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            what = f"No node takes the server: {condition.get('message', '')}"
            return UnavailableError("Unschedulable", what, fix="Give the cluster a node with room for it."), False
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if container.get("ready"):
            continue  # what it has survived is over
        waiting = (container.get("state") or {}).get("waiting") or {}
        ended = (container.get("lastState") or {}).get("terminated") or (container.get("state") or {}).get("terminated")
        reason = waiting.get("reason", "")
        if reason in ("ErrImagePull", "ImagePullBackOff", *HOPELESS):
            what = f"The image {container.get('image', '')} cannot be started: {waiting.get('message') or reason}"
            return UnavailableError("ImagePullError", what, fix="Check images.serve and its pull secret."), (
                reason in HOPELESS
            )
        if ended and ended.get("exitCode") and int(container.get("restartCount") or 0) > 0:
            return _ended(ended), int(container["restartCount"]) >= RESTARTS
    return None


def _ended(ended: Mapping[str, Any]) -> KaiflowError:
    if ended.get("reason") == "OOMKilled":
        return UnavailableError(
            "ContainerOOMKilled", "The server was ended for its memory.", fix="Serve on a machine with more memory."
        )
    said = str(ended.get("message") or f"it ended with exit code {ended['exitCode']}").strip()
    return UnavailableError("ContainerCrashLoopBackOff", f"The server cannot start: {said}", fix="Read its log.")

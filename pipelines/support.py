"""What of a Workflow can the local engine run?  Everything else is refused by name before anything starts.

Three answers for a field: it is executed; it says where and how a pod is placed, secured or cleaned up, which
one machine does not need; or it would change what happens, and is not supported.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.expressions import tasks_in
from pipelines.volumes import INPUT_VOLUME
from presets.errors import ConfigError, FieldError, InvalidInput

_SPEC = {"entrypoint", "onExit", "arguments", "templates", "parallelism", "volumes", "synchronization"}
_SPEC_PLACEMENT = {
    "serviceAccountName", "securityContext", "podGC", "ttlStrategy", "nodeSelector", "tolerations", "affinity",
    "imagePullSecrets", "podMetadata", "workflowMetadata", "priority", "podPriorityClassName", "archiveLogs",
    "automountServiceAccountToken", "executor", "podDisruptionBudget", "schedulerName", "dnsPolicy", "hostNetwork",
}  # fmt: skip
_TEMPLATE = {"name", "inputs", "outputs", "container", "dag", "retryStrategy", "activeDeadlineSeconds", "podSpecPatch"}
_TEMPLATE_PLACEMENT = {
    "nodeSelector", "tolerations", "affinity", "metadata", "serviceAccountName", "securityContext", "priorityClassName",
    "automountServiceAccountToken", "executor", "annotations", "schedulerName", "archiveLocation",
}  # fmt: skip
_CONTAINER = {"name", "command", "args", "env", "volumeMounts"}
_CONTAINER_PLACEMENT = {"image", "imagePullPolicy", "ports", "resources", "securityContext"}
_TASK = {"name", "template", "arguments", "depends", "dependencies", "when"}
_DAG = {"tasks", "failFast"}
_RETRY = {"limit", "retryPolicy", "expression", "backoff"}
_VOLUME_KINDS = {"emptyDir", "secret"}


def check_supported(workflow: Mapping[str, Any]) -> None:
    """Return when the local engine can run ``workflow``.

    Raises:
        InvalidInput: with the path of every field that it cannot honour.
    """
    errors = [
        FieldError(path, "NotSupportedLocally", f"{path} is not supported on one machine.", fix)
        for path, fix in _problems(workflow["spec"])
    ]
    if errors:
        raise InvalidInput(workflow["metadata"]["name"], errors)


def _problems(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    cluster = "Submit the Workflow to a cluster."
    yield from ((f"spec.{key}", cluster) for key in _unknown(spec, _SPEC | _SPEC_PLACEMENT))
    # A mutex keeps runs apart; here the lock on the Workspace's folder does. A semaphore counts what others hold too.
    yield from ((f"spec.synchronization.{k}", cluster) for k in _unknown(spec.get("synchronization", {}), {"mutexes"}))
    yield from _volumes(spec.get("volumes", ()), "spec.volumes")
    for template in spec["templates"]:
        path = f"spec.templates[{template['name']}]"
        yield from ((f"{path}.{k}", cluster) for k in _unknown(template, _TEMPLATE | _TEMPLATE_PLACEMENT | {"volumes"}))
        yield from ((f"{path}.container.{k}", cluster) for k in _container_problems(template.get("container", {})))
        yield from ((f"{path}.retryStrategy.{k}", cluster) for k in _unknown(template.get("retryStrategy", {}), _RETRY))
        yield from _volumes(template.get("volumes", ()), f"{path}.volumes")
        yield from ((f"{path}.{part}", cluster) for part in _parameter_problems(template))
        dag = template.get("dag", {})
        yield from ((f"{path}.dag.{k}", cluster) for k in _unknown(dag, _DAG))
        yield from ((f"{path}.dag.tasks[{name}].depends", "Name tasks of the DAG.") for name in _never_ready(dag))
        for task in dag.get("tasks", ()):
            yield from ((f"{path}.dag.tasks[{task['name']}].{k}", cluster) for k in _unknown(task, _TASK))


def _unknown(body: Mapping[str, Any], known: set[str]) -> list[str]:
    return [key for key in body if key not in known]


def _never_ready(dag: Mapping[str, Any]) -> list[str]:
    """Return the tasks that wait for a task that is not there, or in a circle for themselves."""
    waiting = {task["name"]: tasks_in(depends_of(task)) for task in dag.get("tasks", ())}
    ready: set[str] = set()
    while found := {name for name, before in waiting.items() if name not in ready and before <= ready}:
        ready |= found
    return [name for name in waiting if name not in ready]


def depends_of(task: Mapping[str, Any]) -> str:
    """Return the ``depends`` expression of a task, whichever way it is written."""
    return str(task.get("depends") or " && ".join(task.get("dependencies", ())) or "")


def _container_problems(container: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown(container, _CONTAINER | _CONTAINER_PLACEMENT)
    for variable in container.get("env", ()):
        source = variable.get("valueFrom")
        if source is not None and "secretKeyRef" not in source:
            yield f"env[{variable['name']}].valueFrom"


def _parameter_problems(template: Mapping[str, Any]) -> Iterator[str]:
    for artifact in template.get("inputs", {}).get("artifacts", ()):
        if "raw" not in artifact:
            yield f"inputs.artifacts[{artifact['name']}]"
    outputs = template.get("outputs", {})
    yield from (f"outputs.{key}" for key in _unknown(outputs, {"parameters"}))
    for parameter in outputs.get("parameters", ()):
        if "path" not in parameter.get("valueFrom", {}):
            yield f"outputs.parameters[{parameter['name']}].valueFrom"
    if "podSpecPatch" in template:
        patch = json.loads(template["podSpecPatch"])
        yield from (f"podSpecPatch.{key}" for key in _unknown(patch, {"terminationGracePeriodSeconds"}))


def _volumes(volumes: Any, path: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401  (a list of Argo's volumes)
    for volume in volumes:
        kinds = set(volume) - {"name"}
        if volume["name"] == INPUT_VOLUME and kinds == {"hostPath"}:
            continue  # the fetch step reads the folder itself
        required = any(not volume["secret"].get("optional") for kind in kinds if kind == "secret")
        for kind in sorted(kinds - _VOLUME_KINDS) or (["secret"] if required else []):
            yield (
                f"{path}[{volume['name']}].{kind}",
                "Use URLs and an output image, or submit the Workflow to a cluster.",
            )


def grace_seconds(template: Mapping[str, Any]) -> float:
    """Return how long a step may take to end after SIGTERM: Kubernetes' default is 30 s."""
    patch = json.loads(template.get("podSpecPatch") or "{}")
    return float(patch.get("terminationGracePeriodSeconds", 30))


def find_template(workflow: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the template called ``name``.

    Raises:
        ConfigError: there is none.
    """
    for template in workflow["spec"]["templates"]:
        if template["name"] == name:
            return dict(template)
    raise ConfigError("TemplateMissing", f"The Workflow has no template {name!r}.", fix="Report this as a bug.")

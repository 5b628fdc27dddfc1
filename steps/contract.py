"""What a step is told and what it answers: the one place that the DAG and the steps share.

A step reads a JSON request and writes ``result.json`` beside one small file per output under ``outputs/``,
which is what Argo (and the local engine) read output parameters from. No heavy imports: the DAG reads this.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter

Verb = Literal["fetch", "provision", "weights", "tune", "push", "deploy", "release"]
VERBS: tuple[Verb, ...] = get_args(Verb)
Target = Literal["cluster", "local"]

# Output parameters of each step. Part of the contract: the DAG, the mirror and the commands read them.
OUTPUTS: Mapping[Verb, tuple[str, ...]] = {
    "fetch": ("dataset", "rows", "held-out-rows", "changed", "published", "cached"),
    "provision": ("nodes", "instance-type", "attempts", "cached"),
    "weights": ("weights", "cached"),
    "tune": ("run", "base-loss", "tuned-loss", "steps", "against-published", "cached"),
    "push": ("image", "digest", "verdict", "cached"),
    "deploy": ("endpoint", "model", "cached"),
    "release": ("released",),
}

# Raised when a step's way of working changes what it produces: it is part of every content key.
STEP_VERSIONS: Mapping[Verb, int] = {**dict.fromkeys(VERBS, 1), "fetch": 4, "weights": 2, "tune": 4, "push": 3}

INPUT_FOLDER = Path("/mnt/input")  # where tuning.input.volumeSource is mounted
OUTPUT_FOLDER = Path("/mnt/output")  # where tuning.output.volumeSource is mounted
IMAGE_FOLDER = Path("/mnt/weights")  # where the image of presetOptions.image is, on clusters with image volumes

MANAGED_BY = {"app.kubernetes.io/managed-by": "kaiflow"}  # of all that is ours
WORKSPACE_LABEL, NAMESPACE_LABEL = "kaito.sh/workspace", "kaito.sh/workspacenamespace"
UID_LABEL = "kaiflow.dev/workspace-uid"  # of a Workflow: a Workspace of the same name is another one
PROVISIONER_LABEL = "kaiflow.dev/provisioner"  # of a Workflow: who makes its nodes
# Of nodes: AKS refuses labels of kubernetes.io, and KAITO's gpu-provisioner deletes pools that carry KAITO's alone.
NODE_LABELS = {"kaiflow.dev/node": "true"}
OWNER_LABEL, OWNER_NAMESPACE_LABEL = "kaiflow.dev/workspace", "kaiflow.dev/workspacenamespace"
RUN_LABEL = "kaiflow.dev/run"  # of the nodes that a run has made: the name of its Workflow

METRICS_PORT_NAME, METRICS_PORT = "metrics", 9090  # of the pod that trains

BEGAN = "KAIFLOW_STEP_BEGAN"  # variable of a step and its processes: when it did, by the monotonic clock
PLAIN_REGISTRIES = "KAIFLOW_PLAIN_REGISTRIES"  # variable: registries without TLS, with commas between them

REQUEST_FILE = "request.json"
RESULT_FILE = "result.json"
OUTPUTS_FOLDER = "outputs"
REPORT_FILE = "report.html"  # of the training, in its work folder
RECIPE_FILE = "recipe.json"  # what the training was told
PUBLISHED_FOLDER = "published"  # of the training: the adapter that the new one is compared with
REPORT_TYPE = "application/vnd.kaiflow.report.v1"  # report and recipe, as an artifact

T = TypeVar("T")


class WorkspaceRef(BaseModel):
    """Which Workspace, and which revision of it, a step works for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    namespace: str
    uid: str
    revision: str


def owner_reference(name: str, uid: str) -> dict[str, Any]:
    """Return what makes an object a Workspace's own: it goes when that goes."""
    return {
        "apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "name": name, "uid": uid,
        "controller": True, "blockOwnerDeletion": False,
    }  # fmt: skip


class Request(BaseModel):
    """All that a step is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verb: Verb
    workspace: WorkspaceRef
    store: str  # where artifacts lie: layout:/absolute/path, or a registry's repository
    target: Target
    recipe: dict[str, Any]  # the parts of the Recipe that the step depends on, by name
    inputs: dict[str, str]  # outputs of earlier steps, by our name for them

    def part(self, name: str, kind: type[T]) -> T:
        """Return one part of the recipe as its dataclass."""
        return TypeAdapter(kind).validate_python(self.recipe[name])


@dataclass(frozen=True, slots=True)
class Result:
    """What a step answers; ``figures`` are for people and reports, ``outputs`` for later steps."""

    outputs: Mapping[str, str]
    figures: Mapping[str, Any] = field(default_factory=dict)


class ReportsProgress(Protocol):
    """Takes ``done`` of ``total`` units of work."""

    def __call__(self, done: int, total: int) -> None:
        """Report; cheap, may be called often."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a step works and whom it tells how far it is."""

    work: Path  # a folder of the step's own
    progress: ReportsProgress
    figures: Callable[[Mapping[str, Any]], None] = lambda _: None  # takes what a training tells every few seconds


def timestamp() -> str:
    """Return the time as Kubernetes writes it: such texts sort by time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_result(result: Result, verb: Verb, work: Path) -> None:
    """Write the outputs and then the result; every output of the contract must be there.

    Raises:
        KeyError: the step left out an output, or invented one.
    """
    if set(result.outputs) != set(OUTPUTS[verb]):
        raise KeyError(f"{verb} gives {sorted(result.outputs)}, and its contract says {sorted(OUTPUTS[verb])}")
    folder = work / OUTPUTS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in result.outputs.items():
        (folder / name).write_text(value)
    (work / RESULT_FILE).write_text(json.dumps({"outputs": dict(result.outputs), "figures": dict(result.figures)}))

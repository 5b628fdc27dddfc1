"""Recipe -> Plan: which steps run, after which, told what, on what.  Pure; no Argo words yet."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.names import run_name
from pipelines.volumes import INPUT_VOLUME, MOUNTS, OUTPUT_VOLUME, WEIGHTS_VOLUME
from presets.catalogue import find_model
from presets.gpus import skus
from presets.names import parse_image
from presets.node_request import NodePlacement, NodeRequest, node_request
from presets.recipe import Recipe
from presets.serving_place import Mount, ServingPlace
from steps.contract import OUTPUT_FOLDER, Verb
from steps.store import LAYOUT_PREFIX, REGISTRY_PREFIX

# Parts of the Recipe that each step is told; a step's cache key can only depend on what it is told.
PARTS: Mapping[Verb, tuple[str, ...]] = {
    "fetch": ("data", "audit", "model", "training"),
    "provision": (),
    "weights": ("model",),
    "tune": ("model", "data", "quantization", "lora", "training", "evaluation", "budget"),
    "push": ("model", "data", "evaluation", "output"),
    "deploy": ("model", "quantization", "deploy"),
    "release": (),
}


@dataclass(frozen=True, slots=True)
class Input:
    """A value from an earlier step, and the name under which the step is told it."""

    name: str
    step: Verb
    output: str


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of the run."""

    verb: Verb
    after: tuple[Verb, ...]
    inputs: tuple[Input, ...]
    on_gpu: bool

    @property
    def name(self) -> str:
        """Name of the DAG task."""
        return self.verb


@dataclass(frozen=True, slots=True)
class Images:
    """Container images of the steps and of the server."""

    step: str = "ghcr.io/kaiflow/step:0.1.0"
    tune: str = "ghcr.io/kaiflow/tune:0.1.0"
    serve: str = "ghcr.io/kaiflow/serve:0.1.0"
    pull_secrets: tuple[str, ...] = ()  # where they are not public
    pull_policy: str | None = None  # None: Kubernetes' own


@dataclass(frozen=True, slots=True)
class Placement:
    """What the cluster offers, whoever's Workspace it is."""

    cache: str | None = None  # registry/repository for everything but users' images; None: beside the output
    image_volumes: bool = False  # pods may mount images
    machines: Path | None = None  # a file of GPU machines, on top of the table
    nodes: NodePlacement = field(default_factory=NodePlacement)  # who makes nodes
    images: Images = Images()
    environment: Mapping[str, str] = field(default_factory=dict)  # of every pod: mirrors, registries without TLS
    pod_labels: Mapping[str, str] = field(default_factory=dict)  # likewise: azure.workload.identity/use: "true"
    server_account: str = ""  # of the servers' pods, where an identity is bound to it; empty: the namespace's own


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: its name, its steps in order, and what always runs last."""

    recipe: Recipe
    name: str
    steps: tuple[PlannedStep, ...]
    last: PlannedStep
    placement: Placement
    node: NodeRequest

    @property
    def store(self) -> str:
        """Where the artifacts of a run on a cluster lie."""
        return f"{REGISTRY_PREFIX}{self.placement.cache}" if self.placement.cache else _beside_output(self.recipe)

    @property
    def mounted_weights(self) -> str | None:
        """The image that is mounted for its weights: named by digest, so that what is mounted is what was pinned."""
        image = self.recipe.model.weights_image
        return image if image and "@" in image and self.placement.image_volumes else None

    @property
    def stages_weights(self) -> bool:
        """Whether the weights are copied into the store."""
        return self.placement.cache is not None and self.mounted_weights is None


NODE_STEPS: tuple[Verb, ...] = ("provision", "release")
DATASET = Input("dataset", "fetch", "dataset")
PUBLISHED = Input("published", "fetch", "published")
WEIGHTS = Input("weights", "weights", "weights")
RUN = Input("run", "tune", "run")
AGAINST = Input("against", "tune", "against-published")


def plan(recipe: Recipe, placement: Placement = Placement()) -> Plan:
    """Return the steps of ``recipe``: fetch, then provision beside weights, tune, push, deploy; release last.

    No node is asked for before the data has passed its audit. Where nothing will be served, the node is
    given back right after the training, not only at the end. A run of the schedule goes on after fetch only where the
    data has changed, and its training is told what is published, to be compared with it.
    """
    steps = [
        PlannedStep("fetch", (), (), on_gpu=False),
        PlannedStep("provision", ("fetch",), (), on_gpu=False),
        PlannedStep("weights", ("fetch",), (), on_gpu=False),
        PlannedStep("tune", ("provision", "weights"), (DATASET, WEIGHTS, PUBLISHED), on_gpu=True),
        PlannedStep("push", ("tune",), (RUN, AGAINST), on_gpu=False),
    ]
    if recipe.deploy.enabled:
        steps.append(PlannedStep("deploy", ("push",), (RUN, WEIGHTS), on_gpu=False))
    if not serves_on_node(recipe):
        steps.append(PlannedStep("release", ("tune",), (), on_gpu=False))
    node = node_request(recipe, find_model(recipe.model.preset), placement.nodes, skus(placement.machines))
    last = PlannedStep("release", (), (), on_gpu=False)
    return Plan(recipe, run_name(recipe), tuple(steps), last, placement, node)


def serves_on_node(recipe: Recipe) -> bool:
    """Whether the node that trains goes on to serve what it has trained; transformers serves on a CPU."""
    return recipe.deploy.enabled and recipe.deploy.runtime != "transformers"


def told(plan: Plan, verb: Verb) -> dict[str, Any]:
    """Return the parts of the Recipe that a step is told; the training is told origins too, for its report."""
    recipe = plan.recipe
    if verb in NODE_STEPS:
        return {"node": asdict(plan.node)}
    parts = {name: asdict(getattr(recipe, name)) for name in PARTS[verb]}
    if verb == "deploy":
        parts["place"] = asdict(serving_place(plan))
    if verb == "tune":
        parts["origins"] = {path: origin for path, origin in recipe.origins.items() if path.partition(".")[0] in parts}
    return parts


def user_volumes(plan: Plan) -> dict[str, Mapping[str, Any]]:
    """Return name -> volume source of the volumes that the Workspace reads from and writes to."""
    image = plan.mounted_weights
    named = {
        INPUT_VOLUME: plan.recipe.data.volume_source,
        OUTPUT_VOLUME: plan.recipe.output.volume_source,
        WEIGHTS_VOLUME: {"image": {"reference": image, "pullPolicy": "IfNotPresent"}} if image else None,
    }
    return {name: source for name, source in named.items() if source is not None}


def node_labels(node: NodeRequest) -> dict[str, str]:
    """Return the labels that a GPU node must carry, beside that of its run; of a given one its machine's too."""
    named = node.attempts[0].instance_type if node.attempts and node.placement.provisioner == "byo" else ""
    return {**node.labels, **({"node.kubernetes.io/instance-type": named} if named else {})}


def serving_place(plan: Plan) -> ServingPlace:
    """Return how the server is placed: on a CPU, or on the GPU node that has trained."""
    recipe, images = plan.recipe, plan.placement.images
    on_gpu = serves_on_node(recipe)
    mounts = [Mount(n, s, str(MOUNTS[n])) for n, s in user_volumes(plan).items() if n != INPUT_VOLUME]
    return ServingPlace(
        image=images.serve,
        account=plan.placement.server_account,
        pull_policy=images.pull_policy,
        gpus=1 if on_gpu else 0,
        node_labels=node_labels(plan.node) if on_gpu else {},
        on_own_node=on_gpu and plan.node.placement.provisioner != "byo",
        registry_secret=recipe.output.push_secret if recipe.output.image else None,
        pull_secrets=image_pull_secrets(plan),
        mounts=tuple(mounts),
        environment=plan.placement.environment,
        pod_labels=plan.placement.pod_labels,
        weights_secrets=() if plan.stages_weights else recipe.model.pull_secrets,
        access_secret=None if plan.stages_weights else recipe.model.access_secret,
    )


def image_pull_secrets(plan: Plan) -> tuple[str, ...]:
    """Return the Secrets by which the kubelet pulls: our images, and the one that is mounted for its weights."""
    weights = plan.recipe.model.pull_secrets if plan.mounted_weights else ()
    return tuple(dict.fromkeys((*plan.placement.images.pull_secrets, *weights)))


def _beside_output(recipe: Recipe) -> str:
    """Return the repository of the output image, or the layout in the output volume."""
    reference = parse_image(recipe.output.image) if recipe.output.image else None
    return f"{REGISTRY_PREFIX}{reference.repository_with_registry}" if reference else f"{LAYOUT_PREFIX}{OUTPUT_FOLDER}"


def request_json(plan: Plan, step: PlannedStep) -> str:
    """Return the step's request as JSON in which only Argo's own tags are tags.

    Text of the user's (a chat template, say) may hold ``{{``, which Argo would try to fill in: it is written
    as the JSON escape of the same character.
    """
    recipe = plan.recipe
    inputs: dict[str, _Tag | str] = {i.name: _Tag(f"inputs.parameters.{i.name}") for i in step.inputs}
    if step.verb == "deploy":
        inputs["port"] = _Tag("workflow.parameters.port")
        inputs["workflow"] = _Tag("workflow.name")  # whose node it goes on
    if step.verb == "weights":
        inputs["stage"] = _Tag("workflow.parameters.stage")
    if step.verb in NODE_STEPS:
        inputs["run"] = _Tag("workflow.name")  # what the run's nodes are known by
    if step.verb == "push":
        inputs["publish"] = _Tag("workflow.parameters.publish")
        inputs |= {"scheduled": _SCHEDULED, "created": _Tag("workflow.creationTimestamp")}  # the run's own tag
    if step.verb == "fetch":
        inputs |= {"scheduled": _SCHEDULED, **_published_place(plan)}
    body = {
        "verb": step.verb,
        "workspace": {
            "name": recipe.name,
            "namespace": recipe.namespace,
            "uid": recipe.uid,
            "revision": recipe.revision,
        },
        "store": _Tag("workflow.parameters.store"),
        "target": _Tag("workflow.parameters.target"),
        "recipe": told(plan, step.verb),
        "inputs": inputs,
    }
    marked = json.dumps(body, separators=(",", ":"), default=_Tag.mark)
    escaped = marked.replace("{{", "{\\u007b")
    return escaped.replace(_Tag.OPEN, "{{").replace(_Tag.CLOSE, "}}")


def _published_place(plan: Plan) -> dict[str, str]:
    """Return where the image of the last good run is, which a run of the schedule is compared with."""
    reference = parse_image(plan.recipe.output.image) if plan.recipe.output.image else None
    schedule = plan.recipe.schedule
    return {
        "published-store": _beside_output(plan.recipe),
        "published-tag": (reference.tag if reference else "") or "latest",
        "only-if-changed": str(schedule is not None and schedule.only_if_changed).lower(),
    }


class _Tag:
    """A value that Argo fills in."""

    OPEN = "\\u0001tag:"  # as json.dumps writes a character that no YAML document can hold
    CLOSE = ":tag\\u0001"

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def mark(tag: object) -> str:
        """Return what stands for the tag until the JSON is written."""
        if not isinstance(tag, _Tag):
            raise TypeError(f"{tag!r} cannot be written as JSON")
        return f"\x01tag:{tag.name}:tag\x01"


_SCHEDULED = _Tag("workflow.parameters.scheduled")

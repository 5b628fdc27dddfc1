"""Which node does the training ask for, what is asked for next when there is none, and of whom?  Pure.

The order of attempts: the machine that is named (or the cheapest that fits), then the others that the Workspace allows;
of each first spot, where that is wanted, and every zone before the next.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from presets.catalogue import Model
from presets.errors import ConfigError
from presets.fit import fit_or_next, fitting
from presets.gpus import Sku, find_sku
from presets.memory import GIB
from presets.provisioners import PROVIDERS, WAIT_SECONDS, Cloud, GpuDriver, Provisioner, Spot
from presets.recipe import NodeRecipe, Recipe

DISK_GIB = 100  # image, packages, rows, checkpoints
UNKNOWN_MODEL_DISK_GIB = 512
ROUNDED_GIB = 16
MOST_ATTEMPTS = 64
KAITOS = ("karpenter", "azure")  # KAITO's gpu-provisioner


@dataclass(frozen=True, slots=True)
class AksCluster:
    """The managed cluster whose agent pools are made."""

    subscription: str
    resource_group: str
    name: str
    gpu_driver: GpuDriver = "Install"  # None: the GPU operator brings it
    autoscale: bool = False  # 0 to 1: the cluster's autoscaler then ends a node that an unclean end has left


@dataclass(frozen=True, slots=True)
class NodePlacement:
    """Who makes nodes on this cluster: the choice of whoever installed kaiflow."""

    provisioner: Provisioner = "karpenter"
    cloud: Cloud = "azure"
    aks: AksCluster | None = None  # of provisioner aks
    wait_seconds: int = WAIT_SECONDS  # for one attempt
    # What is tried where a Workspace does not say it.
    fallback_instance_types: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    spot: Spot = "never"


@dataclass(frozen=True, slots=True)
class NodeAttempt:
    """One way to get a node."""

    instance_type: str  # empty: any, of nodes that are given
    zone: str | None = None  # None: any
    spot: bool = False

    def __str__(self) -> str:
        """Return it in words."""
        return " ".join(
            (self.instance_type, *(["spot"] if self.spot else []), *([f"zone {self.zone}"] if self.zone else []))
        )


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """What the provision step is told."""

    placement: NodePlacement
    attempts: tuple[NodeAttempt, ...]
    gpus: int  # so many at least, of one node
    labels: Mapping[str, str] = field(default_factory=dict)  # the Workspace's, that the node must carry
    preferred_nodes: tuple[str, ...] = ()
    disk_gib: int = 0


def node_request(
    recipe: Recipe, model: Model | None, placement: NodePlacement, table: Mapping[str, Sku]
) -> NodeRequest:
    """Return what to ask for; without attempts where no machine is named and none of ``table`` is known to fit.

    Raises:
        ConfigError: a machine that is to be tried next has fewer GPUs than the first, or the training does not fit it;
            there is too much to try.
    """
    node = recipe.node
    named = _machines(recipe, model, placement, table)
    gpus = named[0][1].count if named and named[0][1] else 1
    for name, sku in named[1:]:
        if sku is not None and sku.count < gpus:
            raise ConfigError(
                "FallbackTooSmall",
                f"{name} has {sku.count} GPUs, and the pod of {named[0][0]} asks for {gpus}.",
                fix="Name machines with at least as many GPUs in kaiflow.dev/fallback-instance-types.",
            )
        if sku is not None and model is not None and model.shape is not None:
            fit_or_next(recipe, model, sku, table)
    if placement.provisioner == "byo":
        attempts: tuple[NodeAttempt, ...] = (NodeAttempt(named[0][0] if named else ""),)
    else:
        attempts = tuple(attempt for name, _ in named for attempt in _ways(name, node, placement))
        if len(attempts) > MOST_ATTEMPTS:  # each of which may take a quarter of an hour
            raise ConfigError(
                "TooManyAttempts",
                f"{len(attempts)} ways to get a node are asked for, and {MOST_ATTEMPTS} are tried at most.",
                fix="Name fewer machines in kaiflow.dev/fallback-instance-types, or fewer zones in kaiflow.dev/zones.",
            )
    return NodeRequest(placement, attempts, gpus, node.match_labels, node.preferred_nodes, disk_gib(model))


def _machines(
    recipe: Recipe, model: Model | None, placement: NodePlacement, table: Mapping[str, Sku]
) -> list[tuple[str, Sku | None]]:
    """Return (name, machine where it is known) in the order in which they are tried."""
    node = recipe.node
    fallbacks = node.fallback_instance_types or placement.fallback_instance_types
    if node.instance_type:
        return _known((node.instance_type, *fallbacks), table)
    if placement.provisioner == "byo":
        return []
    cheapest = fitting(recipe, model, of_cloud(table, placement.cloud).values()) if model and model.shape else []
    return [*((sku.name, sku) for sku in cheapest[:1]), *_known(fallbacks, table)]


def _known(names: Iterable[str], table: Mapping[str, Sku]) -> list[tuple[str, Sku | None]]:
    return [(sku.name if (sku := find_sku(name, table)) else name, sku) for name in names]


def require_attempts(request: NodeRequest) -> None:
    """Return when there is something to ask for.

    Raises:
        ConfigError: no machine is named, and none is known to fit.
    """
    if not request.attempts:
        raise ConfigError(
            "InstanceTypeMissing",
            f"No machine is named, and none of {PROVIDERS[request.placement.cloud]} is known to fit the training.",
            fix="Set resource.instanceType.",
        )


def require_offered(request: NodeRequest, table: Mapping[str, Sku]) -> None:
    """Return when whoever makes nodes can make these.

    Raises:
        ConfigError: a machine is another cloud's, or spot nodes or zones are asked of a maker that has none.
    """
    placement = request.placement
    if placement.provisioner == "byo":
        return
    if (placement.provisioner, placement.cloud) == KAITOS:
        odd = next((attempt for attempt in request.attempts if attempt.spot or attempt.zone), None)
        if odd is not None:
            raise ConfigError(
                "NotSupported",
                f"KAITO's gpu-provisioner makes no spot nodes and chooses no zone, and {odd} is asked for.",
                fix="Remove kaiflow.dev/spot and kaiflow.dev/zones, or let aks, nap or aws make the nodes.",
            )
    provider = PROVIDERS["azure" if placement.provisioner == "aks" else placement.cloud]
    for attempt in request.attempts:
        sku = find_sku(attempt.instance_type, table)
        if sku is not None and sku.provider != provider:
            raise ConfigError(
                "WrongCloud", f"{sku.name} is a machine of {sku.provider}, and nodes are made in {provider}.",
                fix=f"Name a machine of {provider}, or the cloud whose machine it is (--cloud).",
            )  # fmt: skip


def of_cloud(table: Mapping[str, Sku], cloud: Cloud) -> dict[str, Sku]:
    """Return the machines of ``table`` that the cloud has."""
    return {name: sku for name, sku in table.items() if sku.provider == PROVIDERS[cloud]}


def _ways(name: str, node: NodeRecipe, placement: NodePlacement) -> Iterator[NodeAttempt]:
    kinds = {"never": (False,), "first": (True, False), "only": (True,)}[node.spot or placement.spot]
    for spot in kinds:
        for zone in node.zones or placement.zones or (None,):
            yield NodeAttempt(name, zone, spot)


def disk_gib(model: Model | None) -> int:
    """Return the disk of a node in GiB: room for the weights twice, as they come and as they lie, and the rest."""
    if model is None or model.shape is None:
        return UNKNOWN_MODEL_DISK_GIB
    weights = 2 * 2 * model.shape.parameters / GIB
    return -(-int(DISK_GIB + weights) // ROUNDED_GIB) * ROUNDED_GIB

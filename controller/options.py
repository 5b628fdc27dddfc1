"""The options that several commands share, and what they mean.  Read at every start: nothing heavy."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.output import Format
from presets import provisioners

if TYPE_CHECKING:
    from pipelines.plan import Images
    from presets.node_request import NodePlacement

File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file that holds one Workspace.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a Workspace.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="ConfigMap file, or training_config.yaml, that tuning.config stands for."),
]
Output = Annotated[Format, typer.Option("-o", "--output", help="table, wide, json or yaml.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Namespace of the Workspace.")]
Namespaced = Annotated[str | None, typer.Option("-n", "--namespace", help="Namespace of the Workspace.")]
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Folder that holds .kaiflow; $KAIFLOW_STATE, or the current folder, otherwise."),
]

Cache = Annotated[
    str | None,
    typer.Option("--cache", help="registry/repository for rows, weights, checkpoints; beside the output otherwise."),
]
Provisioner = Annotated[
    provisioners.Provisioner, typer.Option("--provisioner", help="Who makes nodes: karpenter, aks or byo.")
]
Cloud = Annotated[
    provisioners.Cloud,
    typer.Option("--cloud", help="Karpenter's: azure (KAITO's gpu-provisioner), aws, nap (AKS auto-provisioning)."),
]
Aks = Annotated[
    str | None, typer.Option("--aks", metavar="SUBSCRIPTION/GROUP/CLUSTER", help="Whose agent pools aks makes.")
]
GpuDriver = Annotated[
    provisioners.GpuDriver, typer.Option("--gpu-driver", help="Of agent pools: None where the GPU operator brings it.")
]
Autoscale = Annotated[
    bool, typer.Option("--autoscale", help="Agent pools from 0 to 1 node, for the cluster's autoscaler to end.")
]
NodeWait = Annotated[int, typer.Option("--node-wait-seconds", min=60, help="How long one attempt at a node may take.")]
ImageStep = Annotated[str | None, typer.Option("--image-step", help="Image of the steps.")]
ImageTune = Annotated[str | None, typer.Option("--image-tune", help="Image of the training, with CUDA.")]
ImageServe = Annotated[str | None, typer.Option("--image-serve", help="Image of the server.")]
Fallbacks = Annotated[
    list[str] | None,
    typer.Option("--fallback-instance-type", help="Machine to try next, where a Workspace names none; repeated."),
]
Zones = Annotated[
    list[str] | None, typer.Option("--zone", help="Zone that is tried, where a Workspace names none; repeated.")
]
Spot = Annotated[provisioners.Spot, typer.Option("--spot", help="Spot nodes, where a Workspace does not say.")]
Gpus = Annotated[
    Path | None,
    typer.Option("--gpus", envvar="KAIFLOW_GPUS", help="File of GPU machines and prices, on top of the bundled table."),
]
ImageVolumes = Annotated[
    bool, typer.Option("--image-volumes", help="The cluster mounts images: take weights from presetOptions.image so.")
]

Weights = Annotated[
    Path | None, typer.Option("--weights", metavar="FOLDER", help="Take the base model's files from this folder.")
]
Context = Annotated[str | None, typer.Option("--context", help="The cluster of this context of the kubeconfig.")]
Kubeconfig = Annotated[
    Path | None, typer.Option("--kubeconfig", metavar="FILE", help="The cluster of this file; $KUBECONFIG otherwise.")
]
MaxHours = Annotated[
    float | None, typer.Option("--max-hours", min=0.0, help="End the training in time, and pack the best it has.")
]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", min=0.0, help="The same in US dollars, at the named machine's price.")
]


def as_annotations(max_hours: float | None, max_cost: float | None, weights: Path | None) -> dict[str, str]:
    """Return the options as the annotations that say the same."""
    said = {"kaiflow.dev/max-hours": max_hours, "kaiflow.dev/max-cost": max_cost}
    folder = {"kaiflow.dev/weights-folder": str(weights.expanduser().absolute())} if weights else {}
    return {**{key: f"{value:f}" for key, value in said.items() if value is not None}, **folder}


def checked_cache(cache: str | None) -> str | None:
    """Return the repository when it is one.

    Raises:
        ConfigError: it is not.
    """
    from presets.errors import ConfigError
    from presets.names import parse_image

    reference = parse_image(cache) if cache else None
    if cache and (reference is None or not reference.registry or reference.tag or reference.digest):
        raise ConfigError(
            "CacheInvalid", f"{cache!r} is no repository.", fix="Write registry/repository, without a tag."
        )
    return cache


def images(
    step: str | None,
    tune: str | None,
    serve: str | None,
    pull_secrets: Sequence[str] = (),
    pull_policy: str | None = None,
) -> "Images":
    """Return the images of the pods: those that are named, ours otherwise."""
    from pipelines.plan import Images

    known = Images()
    return Images(step or known.step, tune or known.tune, serve or known.serve, tuple(pull_secrets), pull_policy)


def use_kubeconfig(kubeconfig: Path | None) -> None:
    """Let whoever asks for the cluster read this file."""
    if kubeconfig is not None:
        os.environ["KUBECONFIG"] = str(kubeconfig)


def known_machines(gpus: Path | None) -> Path | None:
    """Return the file, and let all that asks what a machine is, or costs, read it too."""
    if gpus is not None:
        os.environ["KAIFLOW_GPUS"] = str(gpus.absolute())
    return gpus


def node_placement(
    provisioner: provisioners.Provisioner,
    cloud: provisioners.Cloud,
    aks: str | None,
    gpu_driver: provisioners.GpuDriver = "Install",
    autoscale: bool = False,
    wait_seconds: int = provisioners.WAIT_SECONDS,
    fallbacks: Sequence[str] = (),
    zones: Sequence[str] = (),
    spot: provisioners.Spot = "never",
) -> "NodePlacement":
    """Return who makes nodes.

    Raises:
        ConfigError: the managed cluster is missing or is not named in three parts.
    """
    from presets.errors import ConfigError
    from presets.node_request import AksCluster, NodePlacement

    parts = aks.split("/") if aks else []
    if (aks and (len(parts) != 3 or not all(parts))) or (provisioner == "aks" and not aks):
        raise ConfigError(
            "AksClusterMissing",
            "Agent pools need their managed cluster.",
            fix="Write --aks SUBSCRIPTION/GROUP/CLUSTER.",
        )
    cluster = AksCluster(parts[0], parts[1], parts[2], gpu_driver, autoscale) if parts else None
    return NodePlacement(provisioner, cloud, cluster, wait_seconds, tuple(fallbacks), tuple(zones), spot)

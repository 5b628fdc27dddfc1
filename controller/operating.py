"""``kaiflow controller``: its options."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from controller.options import (
    Aks,
    Autoscale,
    Cache,
    Cloud,
    Fallbacks,
    GpuDriver,
    Gpus,
    ImageServe,
    ImageStep,
    ImageTune,
    ImageVolumes,
    NodeWait,
    Provisioner,
    Spot,
    Zones,
    checked_cache,
    images,
    known_machines,
    node_placement,
)
from presets.provisioners import WAIT_SECONDS

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


def controller(
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", help="Look at this namespace alone; at all otherwise.")
    ] = "",
    cache: Cache = None,
    image_volumes: ImageVolumes = False,
    provisioner: Provisioner = "karpenter",
    cloud: Cloud = "azure",
    aks: Aks = None,
    gpu_driver: GpuDriver = "Install",
    autoscale: Autoscale = False,
    node_wait_seconds: NodeWait = WAIT_SECONDS,
    fallback_instance_type: Fallbacks = None,
    zone: Zones = None,
    spot: Spot = "never",
    gpus: Gpus = None,
    image_step: ImageStep = None,
    image_tune: ImageTune = None,
    image_serve: ImageServe = None,
    image_pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"] | None, typer.Option(help="Of the images of steps and servers.")
    ] = None,
    image_pull_secret: Annotated[
        list[str] | None, typer.Option("--image-pull-secret", help="Secret for these images; may be repeated.")
    ] = None,
    server_account: Annotated[
        str, typer.Option(help="Account of the servers' pods, where an identity for the registry is bound to it.")
    ] = "",
    environment: Annotated[
        list[str] | None, typer.Option("--environment", metavar="NAME=VALUE", help="Variable of every pod; repeated.")
    ] = None,
    pod_label: Annotated[
        list[str] | None, typer.Option("--pod-label", metavar="NAME=VALUE", help="Label of every pod; repeated.")
    ] = None,
    only_annotated: Annotated[
        bool | None,
        typer.Option(
            "--only-annotated/--all",
            help="Take only Workspaces annotated kaiflow.dev/managed: true.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Workspaces that are looked at together.")] = 8,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of health and metrics.")] = 8080,
    lease_namespace: Annotated[str, typer.Option("--lease-namespace", help="Where the Lease is; here otherwise.")] = "",
    lease_seconds: Annotated[
        float, typer.Option("--lease-seconds", min=1.0, help="How long a dead leader leads.")
    ] = 15,
) -> None:
    """Keep the cluster equal to its Workspaces, and say so in their status; several may run, one works."""
    import asyncio

    from presets.errors import ConfigError

    try:
        from controller.cluster_operator import Settings
        from controller.lease import Pace
        from controller.operator_process import ProcessOptions, run_controller
    except ImportError as error:
        raise ConfigError(
            "ExtraMissing", f"{error.name} is not installed.", fix="pip install 'kaiflow[cluster]'"
        ) from error
    from pipelines.plan import Placement
    from steps import logs

    pods = images(image_step, image_tune, image_serve, image_pull_secret or (), image_pull_policy)
    nodes = node_placement(
        provisioner,
        cloud,
        aks,
        gpu_driver,
        autoscale,
        node_wait_seconds,
        fallback_instance_type or (),
        zone or (),
        spot,
    )
    placement = Placement(
        checked_cache(cache),
        image_volumes,
        known_machines(gpus),
        nodes,
        pods,
        _pairs(environment),
        _pairs(pod_label),
        server_account,
    )
    pace = Pace(lease_seconds, lease_seconds * 2 / 3, lease_seconds / 7.5)
    logs.configure({"component": "controller", **({"pod": os.environ["HOSTNAME"]} if "HOSTNAME" in os.environ else {})})
    settings = Settings(placement, namespace, workers, only_annotated)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        raise typer.Exit(runner.run(run_controller(settings, ProcessOptions(port, lease_namespace, pace))))


def _pairs(said: list[str] | None) -> dict[str, str]:
    return {name: value for name, _, value in (pair.partition("=") for pair in said or ())}


def _loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """Return uvloop, which halves the CPU of a change, where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop

"""``kaiflow plan``, ``validate``, ``audit``, ``render``, ``crds``, ``presets``: what can be said before it runs."""

from pathlib import Path
from typing import Annotated

import typer

from controller.failure import CLI_REFUSED
from controller.options import (
    Aks,
    Autoscale,
    Cache,
    Cloud,
    Config,
    Fallbacks,
    File,
    GpuDriver,
    Gpus,
    ImageServe,
    ImageStep,
    ImageTune,
    ImageVolumes,
    MaxCost,
    MaxHours,
    NodeWait,
    Output,
    Provisioner,
    Spot,
    StateDir,
    Weights,
    Zones,
    as_annotations,
    checked_cache,
    images,
    known_machines,
    node_placement,
)
from controller.output import Format
from presets.provisioners import WAIT_SECONDS


def plan(
    file: File,
    config: Config = None,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    weights: Weights = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Training tokens of the rows, as `kaiflow audit` tells them.")
    ] = None,
    gpus: Gpus = None,
    cache: Cache = None,
    image_volumes: ImageVolumes = False,
    provisioner: Provisioner = "karpenter",
    cloud: Cloud = "azure",
    aks: Aks = None,
    image_step: ImageStep = None,
    image_tune: ImageTune = None,
    image_serve: ImageServe = None,
    output: Output = Format.TABLE,
    state_dir: StateDir = None,
) -> None:
    """Print what would run, where, for how long and how much, and every value with its origin; nothing runs."""
    from controller.loading import load_one
    from controller.planning import write_plan
    from controller.reuse import finished_here
    from controller.state import StateFolder, state_root
    from pipelines.plan import Placement
    from pipelines.plan import plan as make_plan

    machines = known_machines(gpus)  # first: the rules and the budget ask for them too
    loaded = load_one(
        file, config, annotations=as_annotations(max_hours, max_cost, weights), private_hosts_allowed=True
    )
    nodes, pods = node_placement(provisioner, cloud, aks), images(image_step, image_tune, image_serve)
    placement = Placement(checked_cache(cache), image_volumes, machines, nodes, pods)
    planned = make_plan(loaded.recipe, placement)
    folder = StateFolder(state_root(state_dir), planned.recipe.namespace, planned.recipe.name)
    write_plan(planned, output, tokens, finished_here(planned, folder))


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files that hold Workspaces.")],
    old: Annotated[Path | None, typer.Option("--old", help="The Workspaces as they are now: check the update.")] = None,
    config: Config = None,
    output: Output = Format.TABLE,
) -> None:
    """Check Workspaces against every rule, and say what is wrong with each; nothing runs."""
    from controller.output import write, write_data
    from controller.validation import validate as check

    verdicts = check(files, old, config)
    if output in (Format.JSON, Format.YAML):
        write_data([verdict.to_json() for verdict in verdicts], output)
    else:
        for verdict in verdicts:
            write(f"{verdict.file}: {verdict.name or '(no name)'}: {'valid' if verdict.valid else 'refused'}")
            for line in (*map(str, verdict.errors), *(f"warning: {w}" for w in verdict.warnings)):
                write(f"  {line}")
    if not all(verdict.valid for verdict in verdicts):
        raise typer.Exit(CLI_REFUSED)


def audit(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Dataset files or addresses, or one Workspace's file.")
    ],
    model: Annotated[str | None, typer.Option("--model", help="Preset whose tokenizer measures the rows.")] = None,
    config: Config = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write the report to this file.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Read a dataset as a run would, and say what is wrong with it; nothing is trained."""
    from controller.auditing import audit as audit_here
    from controller.auditing import lines
    from controller.output import write, write_data

    found = audit_here(sources, model, config, page)
    if output in (Format.JSON, Format.YAML):
        write_data(found.to_json(), output)
    else:
        for line in lines(found):
            write(line)
    if found.errors:
        raise typer.Exit(CLI_REFUSED)


def render(
    file: File,
    config: Config = None,
    output: Output = Format.YAML,
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
) -> None:
    """Print the Argo Workflow (and the CronWorkflow of a schedule) that a cluster would get."""
    from controller.loading import load_one
    from controller.output import say
    from controller.planning import rendered
    from pipelines.plan import Placement

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
    pods = images(image_step, image_tune, image_serve)
    placement = Placement(checked_cache(cache), image_volumes, known_machines(gpus), nodes, pods)
    loaded = load_one(file, config)
    if loaded.workspace.runs_without_cluster_data:
        say(
            "Warning: tuning.input.urls: file:// and pkg:// are read on your own machine alone; a cluster refuses them."
        )
    typer.echo(rendered(loaded.recipe, output, placement))


def crds(output: Output = Format.YAML) -> None:
    """Print the CustomResourceDefinition of the Workspace: kaiflow crds | kubectl apply --server-side -f -."""
    from controller.output import write_data
    from presets.crd import crd

    write_data(crd(), Format.JSON if output is Format.JSON else Format.YAML)


def presets(output: Output = Format.TABLE) -> None:
    """List the models that can be tuned by name; any Hugging Face id, organisation/model, works too."""
    from controller.preset_table import write_presets

    write_presets(output)

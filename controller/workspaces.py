"""``kaiflow get status why logs chat stop delete submit``: Workspaces here, or on a cluster.

With ``--cluster`` (or ``--context``), and always as ``kubectl kaiflow``, a cluster's; else this machine's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeGuard

import typer

from controller.failure import CLI_FAILED
from controller.options import Config, Context, File, Kubeconfig, Name, Namespaced, Output, StateDir, use_kubeconfig
from controller.output import Format

if TYPE_CHECKING:
    from controller.cluster_place import ClusterPlace
    from controller.local_place import LocalPlace

PLUGIN = "kubectl-kaiflow"

OnCluster = Annotated[
    bool, typer.Option("--cluster", envvar="KAIFLOW_CLUSTER", help="Workspaces of the kubeconfig's cluster.")
]


def _on_cluster(cluster: bool, context: str | None) -> bool:
    return cluster or context is not None or Path(sys.argv[0]).name.startswith(PLUGIN)


def _cluster(namespace: str | None, context: str | None, kubeconfig: Path | None) -> ClusterPlace:
    from controller.cluster_place import ClusterPlace
    from steps.cluster import Cluster

    use_kubeconfig(kubeconfig)
    return ClusterPlace(Cluster.connect(context), namespace)


def _place(
    namespace: str | None, state_dir: Path | None, cluster: bool, context: str | None, kubeconfig: Path | None
) -> ClusterPlace | LocalPlace:
    if _on_cluster(cluster or kubeconfig is not None, context):
        return _cluster(namespace, context, kubeconfig)
    from controller.local_place import LocalPlace

    return LocalPlace(state_dir, namespace)


def submit(
    file: File,
    config: Config = None,
    namespace: Namespaced = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the API server check it, no more.")] = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Follow the status until the run has ended.")] = False,
) -> None:
    """Apply a Workspace and the ConfigMaps of its file to the cluster; every rule is checked first."""
    from controller.following import follow_status
    from controller.loading import load_one, submitted
    from controller.output import say

    loaded = load_one(file, config)
    documents = submitted(file, config, loaded.workspace)
    named = {d["metadata"].get("namespace") for d in documents if d["kind"] == "Workspace"}
    place = _cluster(namespace or named.pop(), context, kubeconfig)
    for body in documents:
        place.apply(body, dry_run=dry_run)
        kind = "workspace.kaito.sh" if body["kind"] == "Workspace" else "configmap"
        say(f"{kind}/{body['metadata']['name']} applied{' (dry run)' if dry_run else ''}")
    if watch and not dry_run:
        name = loaded.recipe.name
        _ended(follow_status(lambda: place.read(name), Format.TABLE, watch=True))


def get(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    namespace: Namespaced = None,
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Of all namespaces.")] = False,
    selector: Annotated[str, typer.Option("-l", "--selector", help="Those with the labels: key=value,…")] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Go on, and print what changes.")] = False,
    output: Annotated[
        Literal["table", "wide", "json", "yaml", "name"],
        typer.Option("-o", "--output", help="table, wide, json, yaml or name."),
    ] = "table",
    state_dir: StateDir = None,
    cluster: OnCluster = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List Workspaces, as kubectl get workspace does: those that were run here, or a cluster's."""
    from controller.following import follow_table
    from controller.output import say, write, write_data
    from controller.workspace_tables import table

    labels = _labels(selector)
    place = _place(namespace, state_dir, cluster, context, kubeconfig)

    def read() -> list[dict[str, Any]]:
        return [place.read(name)] if name else place.workspaces(labels, everywhere=everywhere)

    def lines(found: list[dict[str, Any]]) -> list[str]:
        spread = len({body["metadata"].get("namespace", "default") for body in found}) > 1
        return table(found, wide=output == "wide", placed=everywhere or spread)

    if watch:
        if output not in ("table", "wide"):
            raise typer.BadParameter("--watch goes with -o table and -o wide.")
        follow_table(read, lines)
    workspaces = read()
    if output in ("json", "yaml"):
        body = workspaces[0] if name else {"apiVersion": "v1", "kind": "List", "items": workspaces}
        write_data(body, Format(output))
    elif output == "name":
        for workspace in workspaces:
            write(f"workspace.kaito.sh/{workspace['metadata']['name']}")
    elif workspaces:
        for line in lines(workspaces):
            write(line)
    else:
        say(f"There is no Workspace {'with these labels ' if labels else ''}in {place.words}.")


def _labels(selector: str) -> dict[str, str]:
    """Return what ``-l`` asks for; labels that are the same, as most ask for."""
    pairs = [pair.partition("=") for pair in selector.split(",") if pair]
    words = [word for key, _, value in pairs for word in (key, value.removeprefix("="))]
    if not all(key and sign for key, sign, _ in pairs) or not all(re.fullmatch(r"[A-Za-z0-9._/-]*", w) for w in words):
        raise typer.BadParameter("Write key=value, several with commas between them.", param_hint="--selector")
    return {key: value.removeprefix("=") for key, _, value in pairs}


def status(
    name: Name,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Print anew until the run has ended.")] = False,
    namespace: Namespaced = None,
    output: Output = Format.TABLE,
    state_dir: StateDir = None,
    cluster: OnCluster = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show one Workspace: steps, conditions, results."""
    from controller.following import follow_status

    place = _place(namespace, state_dir, cluster, context, kubeconfig)
    _ended(follow_status(lambda: place.read(name), output, watch=watch))


def _ended(failed: bool) -> None:
    if failed:
        raise typer.Exit(CLI_FAILED)


def why(
    name: Name,
    namespace: Namespaced = None,
    state_dir: StateDir = None,
    cluster: OnCluster = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say what keeps a Workspace from being done, and what to do about it."""
    from controller.output import write
    from controller.why import reasons

    place = _place(namespace, state_dir, cluster, context, kubeconfig)
    events = place.events(name) if _is_cluster(place) else []
    for line in reasons(place.read(name), events):
        write(line)


def _is_cluster(place: ClusterPlace | LocalPlace) -> TypeGuard[ClusterPlace]:
    return hasattr(place, "events")


def logs(
    name: Name,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="Only this step.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, help="The last lines of each log; all otherwise.")
    ] = None,
    namespace: Namespaced = None,
    state_dir: StateDir = None,
    cluster: OnCluster = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the log lines of the newest run, all steps or one."""
    _place(namespace, state_dir, cluster, context, kubeconfig).logs(name, step, follow=follow, tail=tail)


def chat(
    name: Name,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT")],
    model: Annotated[str | None, typer.Option("--model", help="The base's preset name, to ask the base.")] = None,
    namespace: Namespaced = None,
    state_dir: StateDir = None,
    cluster: OnCluster = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Ask the tuned model one question."""
    for piece in _place(namespace, state_dir, cluster, context, kubeconfig).ask(name, prompt, model):
        typer.echo(piece, nl=False)
    typer.echo()


def stop(
    name: Name,
    namespace: Namespaced = None,
    state_dir: StateDir = None,
    cluster: OnCluster = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop the run of a Workspace, and here its server; finished steps are kept."""
    from controller.output import say

    stopped = _place(namespace, state_dir, cluster, context, kubeconfig).stop(name)
    say(f"Stopped {' and '.join(stopped)} of {name}." if stopped else f"Nothing of {name} was running.")


def delete(
    name: Name,
    namespace: Namespaced = None,
    state_dir: StateDir = None,
    cluster: OnCluster = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete a Workspace: here its folder, the store included; on a cluster its run, its server and its nodes."""
    from controller.output import say

    _place(namespace, state_dir, cluster, context, kubeconfig).delete(name)
    say(f"Deleted {name}.")

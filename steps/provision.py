"""provision: a node to train on, ready with its GPUs; one attempt after the other, each said.

On one's own machine the node is that machine.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from presets.errors import KaiflowError, UnavailableError
from presets.node_request import NodeAttempt, NodeRequest, require_attempts
from steps import logs
from steps.cluster import Cluster
from steps.contract import RUN_LABEL, Context, Request, Result
from steps.machine import GIB, Machine, describe
from steps.node_claims import name_prefix, node_name, own_labels, workspace_labels
from steps.node_keeping import needed_by_deployment
from steps.node_provisioner import Clock, Provisioner, RefusedError, provisioner
from steps.node_refusals import Refusal


def run(request: Request, context: Context) -> Result:
    """Take a node, or say what this machine has."""
    if request.target == "local":
        return _this_machine(context)
    wanted = request.part("node", NodeRequest)
    require_attempts(wanted)
    cluster, clock = Cluster.connect(), Clock()
    maker = provisioner(wanted, cluster, clock, context.work)
    give_back_of_earlier_runs(request, maker, cluster)
    node, attempt, refusals = take_one(request, wanted, maker, context.work)
    context.progress(1, 1)
    outcome = [{"attempt": str(a), **asdict(r)} for a, r in refusals]
    return Result(
        outputs={
            "nodes": node, "instance-type": attempt.instance_type, "attempts": json.dumps(outcome), "cached": "false",
        },
        figures={"spot": attempt.spot, "zone": attempt.zone},
    )  # fmt: skip


def take_one(
    request: Request, wanted: NodeRequest, maker: Provisioner, work: Path
) -> tuple[str, NodeAttempt, list[tuple[NodeAttempt, Refusal]]]:
    """Return the node, the attempt that gave it, and those before it with their refusals.

    A step that is tried again goes on with the attempt that it was at: what it has asked for may be on its way.

    Raises:
        UnavailableError: no attempt gave a node; each is named with its reason.
    """
    run, workspace = request.inputs["run"], request.workspace
    labels = own_labels(run, workspace)
    refusals = _earlier(work)
    for number, attempt in enumerate(wanted.attempts):
        if number < len(refusals):
            continue
        name = node_name(run, workspace, number)
        logs.event("attempt", attempt=str(attempt), number=number + 1, of=len(wanted.attempts))
        try:
            return maker.take(attempt, name, labels, lambda said: logs.event("waiting", on=said)), attempt, refusals
        except RefusedError as refused:
            logs.event("refused", attempt=str(attempt), reason=refused.refusal.reason, message=refused.refusal.message)
            gone = _gone(maker, name)
            refusals.append((attempt, refused.refusal))
            _remember(work, refusals)
            if not gone or not refused.refusal.elsewhere:
                break
    last = refusals[-1][1]
    if len(refusals) == 1:
        raise UnavailableError(last.reason, last.message, fix=last.fix)
    tried = "; ".join(f"{attempt}: {refusal}" for attempt, refusal in refusals)
    raise UnavailableError(last.reason, f"{len(refusals)} attempts gave no node. {tried}", fix=last.fix)


def _gone(maker: Provisioner, name: str) -> bool:
    """Give back what an attempt has left; where that fails no other is made, and release tries again."""
    try:
        maker.give_back(name)
    except KaiflowError as error:
        logs.event("kept", node=name, reason=error.reason, message=error.message)
        return False
    return True


def give_back_of_earlier_runs(request: Request, maker: Provisioner, cluster: Cluster) -> None:
    """Give back nodes of other runs of this Workspace, unless they serve: two runs never hold two nodes."""
    prefix = name_prefix(request.inputs["run"], request.workspace)
    for node in maker.own(workspace_labels(request.workspace)):
        if node.name.startswith(prefix) or node.leaving:
            continue
        if not needed_by_deployment(cluster, request.workspace.namespace, node.labels):
            logs.event("released", node=node.name, of_run=node.labels.get(RUN_LABEL))
            maker.give_back(node.name)


def _earlier(work: Path) -> list[tuple[NodeAttempt, Refusal]]:
    """Return the refusals of an earlier try of this step, where its folder has lasted."""
    try:
        told = json.loads((work / "refusals.json").read_text())
        return [(NodeAttempt(**attempt), Refusal(**refusal)) for attempt, refusal in told]
    except (OSError, ValueError, TypeError):
        return []


def _remember(work: Path, refusals: list[tuple[NodeAttempt, Refusal]]) -> None:
    part = work / "refusals.json.part"
    part.write_text(json.dumps([(asdict(attempt), asdict(refusal)) for attempt, refusal in refusals]))
    part.replace(work / "refusals.json")


def _this_machine(context: Context) -> Result:
    machine = describe()
    logs.event("machine", **asdict(machine))
    context.progress(1, 1)
    outputs: Mapping[str, str] = {
        "nodes": summary(machine), "instance-type": "", "attempts": "[]", "cached": "false",
    }  # fmt: skip
    return Result(outputs=outputs, figures=asdict(machine))


def summary(machine: Machine) -> str:
    """Return one line such as ``2 cores, 24 GiB, no GPU``."""
    gpus = f"{len(machine.gpus)} x {machine.gpus[0]}" if machine.gpus else "no GPU"
    return f"{machine.cores} cores, {machine.memory_bytes / GIB:.0f} GiB, {gpus}"

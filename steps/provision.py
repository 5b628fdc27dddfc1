"""provision: a node to train on, ready with its GPUs; one attempt after the other, each said.

On one's own machine the node is that machine.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from presets.errors import LATER, TryAgainError, UnavailableError
from presets.node_request import NodeAttempt, NodeRequest, require_attempts
from steps import logs
from steps.cluster import Cluster
from steps.contract import Context, Request, Result
from steps.machine import GIB, Machine, describe
from steps.node_claims import name_prefix, node_name, own_labels, workspace_labels
from steps.node_keeping import needed_by_deployment
from steps.node_provisioner import Clock, Provisioner, RefusedError, given_back, provisioner, until_gone
from steps.node_refusals import Refusal


def run(request: Request, context: Context) -> Result:
    """Take a node, or say what this machine has."""
    if request.target == "local":
        return _this_machine(context)
    wanted = request.part("node", NodeRequest)
    require_attempts(wanted)
    cluster, clock = Cluster.connect(), Clock()
    maker = provisioner(wanted, cluster, clock, context.work)
    give_back_of_earlier_runs(request, maker, cluster, clock)
    node, attempt, refusals = take_one(request, wanted, maker, context.work, clock)
    context.progress(1, 1)
    outcome = [{"attempt": str(a), **asdict(r)} for a, r in refusals]
    return Result(
        outputs={
            "nodes": node, "instance-type": attempt.instance_type, "attempts": json.dumps(outcome), "cached": "false",
        },
        figures={"spot": attempt.spot, "zone": attempt.zone},
    )  # fmt: skip


def take_one(
    request: Request, wanted: NodeRequest, maker: Provisioner, work: Path, clock: Clock
) -> tuple[str, NodeAttempt, list[tuple[NodeAttempt, Refusal]]]:
    """Return the node, the attempt that gave it, and those before it with their refusals.

    A step that is tried again goes on with the attempt that it was at: what it has asked for may be on its way.

    Raises:
        UnavailableError: no attempt gave a node; each is named with its reason.
    """
    run, workspace = request.inputs["run"], request.workspace
    labels = own_labels(run, workspace)
    refusals = _earlier(work)
    begin = max(len(refusals), _under_way(maker, name_prefix(run, workspace), labels, clock))
    for number, attempt in enumerate(wanted.attempts):
        if number < begin:
            continue
        name = node_name(run, workspace, number)
        logs.event("attempt", attempt=str(attempt), number=number + 1, of=len(wanted.attempts))
        try:
            return maker.take(attempt, name, labels, lambda said: logs.event("waiting", on=said)), attempt, refusals
        except RefusedError as refused:
            logs.event("refused", attempt=str(attempt), reason=refused.refusal.reason, message=refused.refusal.message)
            gone = _gone(maker, name, labels, clock)
            refusals.append((attempt, refused.refusal))
            _remember(work, refusals)
            if not gone or not refused.refusal.elsewhere:
                break
    last = refusals[-1][1]
    if len(refusals) == 1:
        raise UnavailableError(last.reason, last.message, fix=last.fix)
    tried = "; ".join(f"{attempt}: {refusal}" for attempt, refusal in refusals)
    raise UnavailableError(last.reason, f"{len(refusals)} attempts gave no node. {tried}", fix=last.fix)


def _under_way(maker: Provisioner, prefix: str, labels: Mapping[str, str], clock: Clock) -> int:
    """Return the attempt that a pod before this one was at, by the node that is there; others are waited out.

    Raises:
        KaiflowError: another one's machine does not end.
    """
    there = {node.name: node.leaving for node in maker.own(labels)}
    numbers = {name: int(name.removeprefix(prefix), 16) for name, leaving in there.items() if not leaving}
    begin = max(numbers.values(), default=0)
    before = [name for name, number in numbers.items() if number < begin]
    _end(maker, before, [name for name, leaving in there.items() if leaving], labels, clock)
    return begin


def _end(
    maker: Provisioner, names: Sequence[str], going: Sequence[str], labels: Mapping[str, str], clock: Clock
) -> None:
    """Give nodes back, and wait until they, and those that are going already, are no more.

    Raises:
        TryAgainError: one is still there.
        KaiflowError: one cannot be given back.
    """
    failed = given_back(maker, names, lambda name: logs.event("released", node=name))
    if failed is not None:
        raise failed
    left = until_gone(maker, [*names, *going], labels, clock)
    if left:
        raise TryAgainError("NodeLeaving", f"{', '.join(left)} is still on its way out.", fix=LATER)


def _gone(maker: Provisioner, name: str, labels: Mapping[str, str], clock: Clock) -> bool:
    """Give back what an attempt has left, machine and all; where that fails no other is made."""
    failed = given_back(maker, [name], lambda _: None)
    return failed is None and not until_gone(maker, [name], labels, clock)


def give_back_of_earlier_runs(request: Request, maker: Provisioner, cluster: Cluster, clock: Clock) -> None:
    """Give back nodes of other runs of this Workspace, unless they serve: two runs never hold two nodes.

    Raises:
        TryAgainError: a machine of theirs does not end.
    """
    prefix = name_prefix(request.inputs["run"], request.workspace)
    labels = workspace_labels(request.workspace)
    others = [node for node in maker.own(labels) if not node.name.startswith(prefix)]
    asked = [node for node in others if not node.leaving]
    asked = [n for n in asked if not needed_by_deployment(cluster, request.workspace.namespace, n.labels)]
    _end(maker, [node.name for node in asked], [node.name for node in others if node.leaving], labels, clock)


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

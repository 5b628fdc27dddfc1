"""What every maker of nodes can do, and which one a run has."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from presets.errors import KaiflowError
from presets.node_request import NodeAttempt, NodeRequest
from presets.provisioners import END_SECONDS
from steps import logs
from steps.cluster import Cluster
from steps.node_claims import Standing, too_late
from steps.node_refusals import Refusal

Tell = Callable[[str], None]  # takes how far a node is, when that changes
POLL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, and how it is waited for; tests have a faster one."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class OwnNode:
    """A node that a run of ours has made, or is making."""

    name: str  # of the claim or the agent pool
    labels: Mapping[str, str]
    instance_type: str
    created_at: str  # as Kubernetes writes it; empty where it is not told
    leaving: bool  # it is being given back


class RefusedError(Exception):
    """An attempt gave no node."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def waited(
    look: Callable[[], tuple[Standing, str]],
    name: str,
    seconds: int,
    until: float,
    clock: Clock,
    tell: Tell,
    poll_seconds: float,
) -> str:
    """Look again and again until a node is ready with its GPUs; return its name.

    Raises:
        RefusedError: it will not come, or has not by ``until``, ``seconds`` after it was asked for.
    """
    last = ""
    while True:
        found, node_name = look()
        if found.refusal is not None:
            raise RefusedError(found.refusal)
        if not found.stage:
            return node_name
        if found.stage != last:
            tell(f"{name}: waits to be {found.stage}")
            last = found.stage
        if clock.now() >= until:
            raise RefusedError(too_late(found, name, seconds))
        clock.sleep(poll_seconds)


def given_back(maker: "Provisioner", names: Iterable[str], tell: Tell) -> KaiflowError | None:
    """Give all of them back, whatever happens to one; return what has gone wrong first, None where nothing has."""
    first: KaiflowError | None = None
    for name in names:
        try:
            maker.give_back(name)
        except KaiflowError as error:
            logs.event("kept", node=name, reason=error.reason, message=error.message)
            first = first or error
        else:
            tell(name)
    return first


def until_gone(maker: "Provisioner", names: Collection[str], labels: Mapping[str, str], clock: Clock) -> list[str]:
    """Wait until nodes that were given back are no more; return those that are on their way out all the same."""
    until = clock.now() + END_SECONDS
    while (left := [n.name for n in maker.own(labels) if n.name in names]) and clock.now() < until:
        clock.sleep(POLL_SECONDS)
    return left


class Provisioner(Protocol):
    """Makes nodes and gives them back; every method is safe to repeat and safe to kill."""

    def take(self, attempt: NodeAttempt, name: str, labels: Mapping[str, str], tell: Tell) -> str:
        """Return the name of a ready node with enough GPUs, made for one attempt under ``name``.

        Raises:
            RefusedError: there will be none.
        """
        ...

    def give_back(self, name: str) -> None:
        """Remove what ``name`` stands for, node and all; one that is gone is no error.

        Raises:
            KaiflowError: it cannot be removed.
        """
        ...

    def own(self, labels: Mapping[str, str]) -> list[OwnNode]:
        """Return what has been made with these labels."""
        ...


def provisioner(request: NodeRequest, cluster: Cluster, clock: Clock, work: Path) -> Provisioner:
    """Return the maker of nodes that the request names; ``work`` is the step's own folder."""
    kind = request.placement.provisioner
    if kind == "karpenter":
        from steps.provision_karpenter import Karpenter

        return Karpenter(request, cluster, clock)
    if kind == "aks":
        from steps.provision_aks import Aks

        return Aks.connect(request, cluster, clock, work)
    from steps.provision_byo import GivenNodes

    return GivenNodes(request, cluster)

"""All that is known of one Workspace at a look.  Data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.intent import NOT_SERVED, Intent, Refusal
from controller.kube_api import Object


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is known of one Workspace."""

    workspace: Object
    intent: Intent | Refusal
    workflows: Sequence[Object]  # of this Workspace, oldest first
    strangers: Sequence[Object]  # of an earlier Workspace of this name
    cron: Object | None
    offered: str  # by the cluster and this kaiflow: an upgrade of it or of its values renews the schedule
    cleanup: Object | None  # the Workflow that gives nodes back when the Workspace goes
    argo: bool  # whether the cluster knows Workflows
    makes_nodes: bool  # whether runs make nodes, or are given them
    training: Mapping[str, Any] | None  # newest training event of the tune step
    attempts: Mapping[str, Any] | None = None  # what the provision step says of its attempts at a node
    releases: Mapping[str, Object] = field(default_factory=dict)  # Workflows that give back what single runs have left


def is_served(seen: Observed) -> bool:
    """Whether anything may be done in the namespace."""
    return not (isinstance(seen.intent, Refusal) and seen.intent.reason == NOT_SERVED)

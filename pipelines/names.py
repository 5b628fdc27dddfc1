"""Names of Workflows: of a run, a schedule, and of what gives nodes back; and of the accounts that their pods are.

Within what Kubernetes and Argo take.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from presets.recipe import Recipe

CRON_NAME_MAX = 52
STEP_ACCOUNT = "kaiflow-step"  # may report its results to Argo, and nothing else
INFRASTRUCTURE_ACCOUNT = "kaiflow-infrastructure"  # makes and removes nodes, Deployments, Services
CLEANUP = "-cleanup"
CLEANUP_LABEL = "kaiflow.dev/cleanup"  # on what gives nodes back, and on what Argo's UI makes of it: of which end
# What stops a Workflow: Argo before 4.1.3 does not look at it where one is suspended (argo-workflows 17041).
STOP: dict[str, Any] = {"spec": {"shutdown": "Stop", "suspend": None}}


def run_name(recipe: Recipe) -> str:
    """Return ``<workspace>-<revision>``, cut to what Kubernetes takes; the same revision has the same name."""
    return f"{_cut(recipe.name, 63 - len(recipe.revision) - 1)}-{recipe.revision}"


def cron_name(workspace: str) -> str:
    """Return the name of a Workspace's CronWorkflow; Argo puts a time behind it."""
    return _cut(workspace, CRON_NAME_MAX)


def cleanup_name(workspace: str, uid: str) -> str:
    """Return the name of the Workflow that gives a Workspace's nodes back when it goes; another one's has another."""
    ending = f"-{uid[:8]}{CLEANUP}"
    return f"{workspace[: 63 - len(ending)].rstrip('-')}{ending}"


def release_name(run: str) -> str:
    """Return the name of the Workflow that gives back the node of a run that could not do it itself."""
    return f"{_cut(run, 63 - len(CLEANUP))}{CLEANUP}"


def end_label(ended: str) -> str:
    """Return when a run ended as the value of a label."""
    return ended.replace(":", "")


def is_cleanup(metadata: Mapping[str, Any]) -> bool:
    """Whether a Workflow gives nodes back and is no run; resubmitted in Argo's UI it has another name."""
    return CLEANUP_LABEL in (metadata.get("labels") or {}) or str(metadata["name"]).endswith(CLEANUP)


def _cut(name: str, letters: int) -> str:
    """Return a name that is no longer than that; two long names that begin alike stay two."""
    if len(name) <= letters:
        return name
    return f"{name[: letters - 7].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"

"""Names of Workflows: of a run, a schedule, and of what gives nodes back.  Within what Kubernetes and Argo take."""

import hashlib

from presets.recipe import Recipe

CRON_NAME_MAX = 52
CLEANUP = "-cleanup"


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


def _cut(name: str, letters: int) -> str:
    """Return a name that is no longer than that; two long names that begin alike stay two."""
    if len(name) <= letters:
        return name
    return f"{name[: letters - 7].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"

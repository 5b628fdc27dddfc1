"""What a look at a Workspace may lead to.  Data; ``controller.performing`` does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from controller.events import Told

FINALIZER = "kaiflow.dev/nodes"


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Hold the Workspace until its nodes are given back."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the Workspace go."""


@dataclass(frozen=True, slots=True)
class CreateRun:
    """Create the Workflow of this revision."""


@dataclass(frozen=True, slots=True)
class StopRun:
    """Tell a Workflow to stop; its exit handler runs."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Delete a Workflow of long ago whose name is needed."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Remember:
    """Note on the Workspace which revision's run was started."""

    revision: str
    number: int


@dataclass(frozen=True, slots=True)
class ApplyCron:
    """Make the CronWorkflow what this revision asks for."""


@dataclass(frozen=True, slots=True)
class SuspendCron:
    """Let the CronWorkflow start no more runs."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteCron:
    """Remove the CronWorkflow."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteServing:
    """Remove Deployment and Service, so that nothing needs a node any more."""


@dataclass(frozen=True, slots=True)
class CreateCleanup:
    """Create the Workflow that gives back the nodes of all runs; the ``last`` time it may fail."""

    last: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseRun:
    """Create the Workflow that gives back the node of a run that could not do it itself."""

    name: str
    ended: str = ""  # when the run ended: of which end the Workflow is
    gone: bool = False  # the run's Workflow is not there: only the status knows of it


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Write the status."""

    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell an Event."""

    told: Told
    when: Literal["now", "done", "written"] = "now"  # done: what was to be done before; written: the status behind


@dataclass(frozen=True, slots=True)
class Again:
    """Look again after a while, whatever happens."""

    seconds: float


Action = (
    AddFinalizer | RemoveFinalizer | CreateRun | StopRun | DeleteRun | Remember | ApplyCron | SuspendCron
    | DeleteCron | DeleteServing | CreateCleanup | ReleaseRun | WriteStatus | Tell | Again
)  # fmt: skip

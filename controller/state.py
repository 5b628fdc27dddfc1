"""The local state: ``.kaiflow/<namespace>/<name>/`` with the Workspace, its Workflow, logs and store.

Files are replaced whole. A lock says whether a run is going on; a status that says Running without anyone
holding the lock is told as what it is: a run that was cut off.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import yaml

from controller.failure import CLI_NOT_FOUND
from presets.errors import KaiflowError, nearest
from presets.names import is_dns_label
from steps import local_server

ENVIRONMENT = "KAIFLOW_STATE"
FOLDER = ".kaiflow"
PROBE_SECONDS = 1.0


class WorkspaceNotFoundError(KaiflowError):
    """There is no Workspace of that name here."""

    exit_code = CLI_NOT_FOUND


class RunInProgressError(KaiflowError):
    """Another process runs this Workspace."""

    exit_code = 1


class StateFolder:
    """The folder of one Workspace."""

    def __init__(self, root: Path, namespace: str, name: str) -> None:
        self.root = root
        self.namespace = namespace
        self.name = name
        self.path = root / namespace / name
        self.workspace_file = self.path / "workspace.yaml"
        self.workflow_file = self.path / "workflow.yaml"
        self.logs = self.path / "logs"
        self.store = self.path / "store"
        self.work = self.path / "work"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the Workspace for one run.

        Raises:
            RunInProgressError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as handle:
            deadline = time.monotonic() + PROBE_SECONDS
            while not _lock(handle):  # whoever only looks holds it for a moment
                if time.monotonic() > deadline:
                    raise RunInProgressError(
                        "RunInProgress",
                        f"{self.name} is running already.",
                        fix=f"Watch it with `kaiflow status {self.name} -w`, or stop it: `kaiflow stop {self.name}`.",
                    )
                time.sleep(0.01)
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def runner(self) -> int | None:
        """Return the pid of the process that runs this Workspace now, None when none does."""
        deadline = time.monotonic() + PROBE_SECONDS
        while time.monotonic() < deadline:
            try:
                with (self.path / "lock").open("r+") as handle:
                    if _lock(handle):
                        return None
                    pid = handle.read()
            except OSError:
                return None
            if pid.isdecimal() and Path(f"/proc/{pid}").exists():
                return int(pid)
            time.sleep(0.01)  # another one that only looks, or a run that has not written its pid yet
        return None

    def write(self, workspace: dict[str, Any], workflow: dict[str, Any]) -> None:
        """Replace both files."""
        for path, body in ((self.workspace_file, workspace), (self.workflow_file, workflow)):
            part = path.with_suffix(".part")
            part.write_text(yaml.dump(body, Dumper=yaml.CSafeDumper, sort_keys=False, width=10**6, allow_unicode=True))
            part.replace(path)

    def read(self) -> dict[str, Any]:
        """Return the Workspace with the status that is true now.

        Raises:
            WorkspaceNotFoundError: nothing of that name has been run here.
        """
        workspace = self.true_now()
        if workspace is None:
            raise WorkspaceNotFoundError("WorkspaceNotFound", f"There is no Workspace {self.name!r} here.", fix="")
        return workspace

    def true_now(self) -> dict[str, Any] | None:
        """Return the Workspace with the status that is true now, None when nothing of that name has been run here."""
        workspace = self.stored()
        status = (workspace or {}).get("status") or {}
        if status.get("state") in ("Pending", "Running") and self.runner() is None:
            _set_interrupted(status)
        serves = status.get("state") == "Ready" or "endpoint" in status
        if serves and local_server.find(self.work / "deploy") is None:
            _set_not_serving(status)
        return workspace

    def stored(self) -> dict[str, Any] | None:
        """Return the Workspace as it was written last, None when there is none."""
        try:
            body: dict[str, Any] = yaml.load(self.workspace_file.read_text(), Loader=yaml.CSafeLoader)
        except OSError:
            return None
        return body

    def last_run(self) -> dict[str, Any] | None:
        """Return the newest run's Workflow as it was written last, None when there is none."""
        try:
            body: dict[str, Any] = yaml.load(self.workflow_file.read_text(), Loader=yaml.CSafeLoader)
        except OSError:
            return None
        return body

    def delete(self) -> None:
        """Remove everything of this Workspace."""
        shutil.rmtree(self.path)
        for parent in (self.path.parent, self.path.parent.parent):
            try:
                parent.rmdir()
            except OSError:
                break


def _lock(handle: TextIO) -> bool:
    """Take the lock if it is free; it is given back when the file is closed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def state_root(chosen: Path | None) -> Path:
    """Return the folder that holds all Workspaces: ``--state-dir``, ``$KAIFLOW_STATE``, or the current folder."""
    return (chosen or Path(os.environ.get(ENVIRONMENT) or ".")).resolve() / FOLDER


def all_folders(root: Path, namespace: str | None = None) -> list[StateFolder]:
    """Return every Workspace that has been run here, by namespace and name."""
    files = sorted(root.glob("*/*/workspace.yaml"))
    found = [StateFolder(root, file.parent.parent.name, file.parent.name) for file in files]
    return [folder for folder in found if namespace in (None, folder.namespace)]


def find_folder(root: Path, namespace: str, name: str) -> StateFolder:
    """Return the folder of a Workspace that has been run here.

    Raises:
        WorkspaceNotFoundError: there is none; the message names the nearest.
    """
    folder = StateFolder(root, namespace, name)
    if is_dns_label(name) and is_dns_label(namespace) and folder.workspace_file.exists():
        return folder
    known = [f.name for f in all_folders(root, namespace)]
    near = nearest(name, known)
    fix = f"Did you mean {' or '.join(near)}?" if near else "`kaiflow get` lists what has been run here."
    raise WorkspaceNotFoundError("WorkspaceNotFound", f"There is no Workspace {name!r} in {root}.", fix=fix)


def _set_interrupted(status: dict[str, Any]) -> None:
    status["state"] = "Failed"
    message = "the run was cut off: its process is gone. Run the file again; finished steps are reused."
    for condition in status.get("conditions", ()):
        if condition["type"] == "Finished":
            condition |= {"status": "True", "reason": "RunInterrupted", "message": "the process of the run is gone"}
        if condition["type"] == "WorkspaceSucceeded":
            condition |= {"status": "False", "reason": "RunInterrupted", "message": message}
    for step in status.get("steps", ()):
        if step["phase"] == "Running":
            step |= {"phase": "Error", "message": "the process of the run is gone"}


def _set_not_serving(status: dict[str, Any]) -> None:
    if status["state"] == "Ready":
        status["state"] = "Succeeded"
    status.pop("endpoint", None)
    message = "the server is not running. Run the file again: only the server is started."
    for condition in status.get("conditions", ()):
        if condition["type"] == "InferenceReady":
            condition |= {"status": "False", "reason": "ServerNotRunning", "message": message}

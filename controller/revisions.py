"""Numbers of revisions, as KAITO writes them on a Workspace, and the mark that names one.  Pure."""

from collections.abc import Iterator

from controller.actions import Remember
from controller.intent import MARKED, REVISION, started
from controller.kube_api import Object
from controller.runs import KEEP_RUNS


def forget(workspace: Object) -> Iterator[Remember]:
    """Yield what takes the mark off, its number kept: what it names is ended, and asked for again has to run anew."""
    if mark := started(workspace):
        yield Remember("", revision_number(workspace, mark))


def revision_number(workspace: Object, revision: str) -> int:
    """Return the number of a revision: that of an earlier run of it, else the next (as KAITO counts)."""
    annotations = workspace["metadata"].get("annotations") or {}
    said, last = annotations.get(REVISION) or "", started(workspace)
    ours = last or annotations.get(MARKED) == workspace["metadata"].get("uid")
    newest = int(said) if ours and said.isascii() and said.isdecimal() else 0  # whoever else writes it
    runs = (workspace.get("status") or {}).get("runs") or ()
    earlier = list(dict.fromkeys(run["revision"] for run in runs if run.get("revision")))
    if last == revision:
        return newest
    if revision not in earlier:
        return max(newest, len(earlier)) + 1
    forgotten = 0  # of those before: only so many runs are kept
    if len(runs) >= KEEP_RUNS:
        forgotten = max(0, newest - 1 - (earlier.index(last) if last in earlier else len(earlier) - 1))
    return earlier.index(revision) + 1 + forgotten

"""The controller: live copies of what is there, a queue of Workspaces to look at, actions done on the cluster."""

import asyncio
import gc
import time
from dataclasses import dataclass

from controller.actions import Action, Again, ReleaseRun, Tell, WriteStatus
from controller.compiling import Compiler
from controller.events import Told
from controller.kube_api import FORBIDDEN, Api, ApiError, Object
from controller.observed import Observed
from controller.observed_workflow import pruned
from controller.observing import FRESH_SECONDS, LOG_SECONDS, Observer, is_telling, must_ask_again, owner_of
from controller.operator_metrics import OperatorMetrics
from controller.performing import ARGO, WORKSPACES, Performer, Subject
from controller.reconcile import reconcile
from controller.reflector import Key, Reflector, key_of
from controller.work_queue import WorkQueue
from pipelines.plan import Placement
from presets.annotations import MANAGED
from presets.crd import OURS
from presets.errors import KaiflowError
from steps import logs
from steps.contract import MANAGED_BY, timestamp

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/workspaces.kaito.sh"
CONFLICT, CONFLICT_SECONDS = 409, 0.1
REFUSED = (400, 403, 413, 422)  # by admission, a quota, rights: another try may be refused too
GATHER_SECONDS = 0.1  # Argo writes in bursts


@dataclass(frozen=True, slots=True)
class Settings:
    """What whoever installs the controller chooses."""

    placement: Placement
    namespace: str = ""  # empty: all
    workers: int = 8
    only_annotated: bool | None = None  # None: where the CRD is not ours


class Operator:
    """One controller at work."""

    def __init__(self, api: Api, settings: Settings, metrics: OperatorMetrics) -> None:
        self._api = api
        self._settings = settings
        self._metrics = metrics
        folder = f"/namespaces/{settings.namespace}" if settings.namespace else ""
        ours = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
        self._workspaces = Reflector(api, f"{WORKSPACES}{folder}/workspaces", _workspace, self._on_workspace)
        self._workflows = Reflector(api, f"{ARGO}{folder}/workflows", pruned, self._on_workflow, ours)
        self._crons = Reflector(api, f"{ARGO}{folder}/cronworkflows", _cron, self._on_cron, ours)
        self._reflectors = {
            "workspaces": self._workspaces, "workflows": self._workflows, "cronworkflows": self._crons,
        }  # fmt: skip
        self._observer = Observer(api, settings.placement, self._workspaces, self._workflows, self._crons)
        self._compiler = Compiler(settings.placement)
        self._performer = Performer(api, self._compiler, self._remember)
        self._queue = WorkQueue(self._look, lambda _key, _error: metrics.errors.inc(), GATHER_SECONDS)
        self._only_annotated = bool(settings.only_annotated)
        metrics.watch_queue(lambda: len(self._queue))
        metrics.watch_states(lambda: map(_state, self._workspaces.objects.values()))

    async def run(self) -> None:
        """Work, until cancelled."""
        try:
            self._only_annotated = await self._shares_with_kaito()
            async with asyncio.TaskGroup() as group:
                for reflector in self._reflectors.values():
                    group.create_task(reflector.run())
                for reflector in self._reflectors.values():  # nothing is decided before all is known
                    await reflector.synced.wait()
                gc.freeze()  # what was listed stays: the collector need not walk over it again and again,
                gc.set_threshold(20_000, 20, 20)  # nor so often over JSON, which has no cycles
                logs.event("synced", workspaces=len(self._workspaces.objects), argo=self._workflows.known)
                await self._queue.run(self._settings.workers)
        finally:
            self._compiler.close()

    async def _shares_with_kaito(self) -> bool:
        """Whether KAITO's own CRD is there, or may be: then only Workspaces that say so are ours.

        Raises:
            ApiError: the API server cannot say now; a Workspace of KAITO's must not become ours by that.
        """
        if self._settings.only_annotated is not None:
            return self._settings.only_annotated
        try:
            crd = await self._api.get(CRD_PATH)
        except ApiError as error:
            if error.status not in FORBIDDEN:
                raise
            logs.warning("crd_unreadable", why=error.message, fix="Choose --all or --only-annotated.")
            return True
        shares = is_of_another(crd)
        logs.event("takes", workspaces=f"those annotated {MANAGED}: true" if shares else "all")
        return shares

    # What the live copies tell

    def _remember(self, kind: str, body: Object, *, quiet: bool) -> None:
        self._reflectors[kind].remember(body, quiet=quiet)

    def _on_workspace(self, before: Object | None, after: Object | None) -> None:
        body = after or before
        if body is not None and (before is None or after is None or _matters(before, after)):
            self._queue.add(key_of(body))

    def _on_workflow(self, before: Object | None, after: Object | None) -> None:
        key = self._observer.index(before, after)
        if key is not None:
            self._queue.add(key)

    def _on_cron(self, before: Object | None, after: Object | None) -> None:
        body = after or before
        key = owner_of(body) if body else None
        if key is not None:
            self._queue.add(key)

    # One look at one Workspace

    async def _look(self, key: Key) -> float | None:
        began = time.perf_counter()
        found = await self._observer.observe(key)
        if found is None:
            return None
        seen, config_map = found
        leaving = "deletionTimestamp" in seen.workspace["metadata"]  # what we hold, we let go, whatever is said now
        if not leaving and not self._is_ours(seen.workspace):
            return None
        actions = reconcile(seen, timestamp())
        try:
            return await self._do(key, seen, config_map, actions)
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            return CONFLICT_SECONDS  # somebody else has written meanwhile: look at what there is now
        finally:
            self._metrics.looks.observe(time.perf_counter() - began)

    def _is_ours(self, workspace: Object) -> bool:
        annotations = workspace["metadata"].get("annotations") or {}
        said = annotations.get(MANAGED)
        return said == "true" if self._only_annotated else said != "false"

    async def _do(self, key: Key, seen: Observed, config_map: Object | None, actions: list[Action]) -> float | None:
        subject = Subject(seen.workspace, config_map)
        waits = [LOG_SECONDS] if is_telling(seen) else []
        if must_ask_again(seen):
            waits.append(FRESH_SECONDS * 2)
        memory = self._observer.memory[key]
        failed: KaiflowError | None = None
        refused = False  # the action before
        held = False  # a node of a run that is gone: only the status knows of it until it is given back
        for action in actions:
            if isinstance(action, Again):
                waits.append(action.seconds)
            elif _is_void(action, refused=refused, held=held):
                continue
            elif isinstance(action, WriteStatus):
                # A CRD that knows fewer fields than we write stores less: that is no reason to write it again.
                if memory.less_stored == (action.status, seen.workspace.get("status")):
                    continue
                before = seen.workspace.get("status") or {}
                await self._performer.perform(subject, action)
                self._metrics.writes.inc()
                self._metrics.runs.changed(before, action.status)
                kept = (self._workspaces.objects.get(key) or {}).get("status")
                memory.less_stored = None if kept == action.status else (action.status, kept)
            else:
                error = await self._perform(subject, action)
                refused, failed = error is not None, error or failed
                held = held or (refused and isinstance(action, ReleaseRun) and action.gone)
                if isinstance(error, ApiError) and error.status in FORBIDDEN:
                    memory.wish = None  # our rights may have gone, with the namespace: they are looked at again
        if failed is not None:
            raise failed
        return min(waits) if waits else None

    async def _perform(self, subject: Subject, action: Action) -> KaiflowError | None:
        """Do one action; what cannot be built, or is refused, is told, and keeps the status from nothing."""
        try:
            await self._performer.perform(subject, action)
        except KaiflowError as error:
            if isinstance(error, ApiError) and error.status not in REFUSED:
                raise
            await self._performer.perform(subject, Tell(Told("ReconcileFailed", f"{error.reason}: {error}")))
            return error
        return None

    @property
    def heard_seconds_ago(self) -> float:
        """How long ago the API server was last heard of, by the kind that has been silent longest."""
        return max((time.monotonic() - r.heard_at for r in self._reflectors.values() if r.known), default=0.0)


def _is_void(action: Action, *, refused: bool, held: bool) -> bool:
    """Whether an action is left out: it tells of what was not done, or writes over what must be known again."""
    if isinstance(action, WriteStatus):
        return held
    return isinstance(action, Tell) and {"now": False, "done": refused, "written": held}[action.when]


def is_of_another(crd: Object | None) -> bool:
    """Whether the Workspace's CRD is there and not ours: KAITO's, whose controller takes all Workspaces."""
    return crd is not None and OURS not in (crd["metadata"].get("labels") or {})


def _workspace(body: Object) -> Object:
    metadata = {k: v for k, v in body["metadata"].items() if k != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations:  # kubectl's copy of the whole object
        kept = {k: v for k, v in annotations.items() if k != "kubectl.kubernetes.io/last-applied-configuration"}
        metadata["annotations"] = kept
    return {**body, "metadata": metadata}


def _cron(body: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "labels")
    conditions = (body.get("status") or {}).get("conditions") or ()
    refused = [{"message": c.get("message", "")} for c in conditions if c.get("type") == "SpecError"]
    metadata = {key: value for key, value in body["metadata"].items() if key in kept}
    suspended = bool((body.get("spec") or {}).get("suspend"))
    return {"metadata": metadata, "suspended": suspended, **({"refused": refused[-1]} if refused else {})}


def _matters(before: Object, after: Object) -> bool:
    """Whether a change is more than our own writing of the status."""
    was, now = before["metadata"], after["metadata"]
    fields = ("generation", "annotations", "finalizers", "deletionTimestamp", "uid")
    return any(was.get(f) != now.get(f) for f in fields) or before.get("status") != after.get("status")


def _state(body: Object) -> str:
    return str((body.get("status") or {}).get("state") or "Pending")

"""Actions done on the cluster, one after the other; whatever fails is tried again with the next look."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller import actions as r
from controller.compiling import Compiler
from controller.events import event_body
from controller.intent import HASH, MARKED, REVISION
from controller.kube_api import FORBIDDEN, Api, ApiError, Object
from pipelines.names import CLEANUP_LABEL, STOP, end_label
from presets.errors import ConfigError, KaiflowError
from steps import logs
from steps.contract import timestamp

WORKSPACES = "/apis/kaito.sh/v1beta1"
ARGO = "/apis/argoproj.io/v1alpha1"
COMPONENT = "kaiflow"


@dataclass(slots=True)
class Subject:
    """The Workspace that is worked on, as it was read, and its ConfigMap."""

    workspace: Object
    config_map: Object | None

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.workspace["metadata"]["namespace"])

    @property
    def path(self) -> str:
        """Its path."""
        return f"{WORKSPACES}/namespaces/{self.namespace}/workspaces/{self.workspace['metadata']['name']}"

    def argo(self, kind: str) -> str:
        """Return the path of a kind of Argo's in its namespace."""
        return f"{ARGO}/namespaces/{self.namespace}/{kind}"


class Seen(Protocol):
    """Is given every object that a write has returned; ``quiet``: nobody need look at it."""

    def __call__(self, kind: str, body: Object, *, quiet: bool) -> None:
        """Take it."""


class Performer:
    """Does actions."""

    def __init__(self, api: Api, compiler: Compiler, seen: Seen) -> None:
        self._api = api
        self._compile = compiler
        self._seen = seen
        self._how: dict[type, Callable[[Subject, Any], Awaitable[None]]] = {
            r.AddFinalizer: self._add_finalizer, r.RemoveFinalizer: self._remove_finalizer,
            r.CreateRun: self._create_run, r.StopRun: self._stop_run, r.DeleteRun: self._delete_run,
            r.Remember: self._remember, r.ApplyCron: self._apply_cron, r.SuspendCron: self._suspend_cron,
            r.DeleteCron: self._delete_cron,
            r.DeleteServing: self._delete_serving, r.CreateCleanup: self._create_cleanup,
            r.ReleaseRun: self._release_run,
            r.WriteStatus: self._write_status, r.Tell: self._tell,
        }  # fmt: skip

    async def perform(self, subject: Subject, action: r.Action) -> None:
        """Do one action.

        Raises:
            ApiError: the API server refuses it.
            KaiflowError: the Workflow cannot be built.
        """
        await self._how[type(action)](subject, action)

    async def _merge(self, subject: Subject, metadata: Object) -> None:
        """Change metadata of the very object that was read."""
        known = subject.workspace["metadata"]
        body = {"metadata": {"resourceVersion": known["resourceVersion"], "uid": known["uid"], **metadata}}
        stored = await self._api.merge(subject.path, body)
        if stored is not None:
            subject.workspace = stored  # never changed in place: it is the live copy's own
            self._seen("workspaces", stored, quiet=False)

    async def _add_finalizer(self, subject: Subject, _: r.AddFinalizer) -> None:
        known = subject.workspace["metadata"].get("finalizers", [])
        await self._merge(subject, {"finalizers": [*known, r.FINALIZER]})

    async def _remove_finalizer(self, subject: Subject, _: r.RemoveFinalizer) -> None:
        known = subject.workspace["metadata"].get("finalizers", [])
        await self._merge(subject, {"finalizers": [name for name in known if name != r.FINALIZER]})

    async def _remember(self, subject: Subject, action: r.Remember) -> None:
        marks = {HASH: action.revision, REVISION: str(action.number), MARKED: subject.workspace["metadata"]["uid"]}
        await self._merge(subject, {"annotations": marks})

    async def _create_run(self, subject: Subject, _: r.CreateRun) -> None:
        workflow, _cron = await self._compile(subject.workspace, subject.config_map)
        await self._create(subject, workflow)

    async def _create(self, subject: Subject, workflow: Object) -> None:
        made = await self._api.create(subject.argo("workflows"), workflow)
        if made is None:  # created by an earlier life of ours, and not seen yet
            path = f"{subject.argo('workflows')}/{workflow['metadata']['name']}"
            made = await self._api.get(path)
            if made is None:  # a quota's conflict is a 409 too
                raise ApiError(409, f"POST {path}", "neither created nor there")
        else:
            logs.event("created", workflow=workflow["metadata"]["name"], namespace=subject.namespace)
        self._seen("workflows", made, quiet=False)

    async def _create_cleanup(self, subject: Subject, action: r.CreateCleanup) -> None:
        """Create it; where the whole namespace goes nothing can be created, and waiting would only hold it up."""
        try:
            await self._create(subject, await self._compile.cleanup(subject.workspace, subject.config_map))
        except KaiflowError as error:
            if action.last:  # the Workspace goes, whether or not
                logs.warning("nodes_may_remain", workspace=subject.path, why=error.message)
                return
            if not (isinstance(error, ApiError) and _is_of_leaving_namespace(error)):
                raise
            logs.warning("nodes_may_remain", workspace=subject.path, fix="kaiflow nodes --orphans")
            await self._remove_finalizer(subject, r.RemoveFinalizer())

    async def _release_run(self, subject: Subject, action: r.ReleaseRun) -> None:
        made = await self._compile.cleanup(subject.workspace, subject.config_map, action.name)
        made["metadata"]["labels"][CLEANUP_LABEL] = end_label(action.ended)
        await self._create(subject, made)

    async def _stop_run(self, subject: Subject, action: r.StopRun) -> None:
        stored = await self._api.merge(f"{subject.argo('workflows')}/{action.name}", STOP)
        if stored is not None:  # the next look must not take it for one that goes on
            self._seen("workflows", stored, quiet=True)

    async def _delete_run(self, subject: Subject, action: r.DeleteRun) -> None:
        await self._api.delete(f"{subject.argo('workflows')}/{action.name}", action.uid)

    async def _apply_cron(self, subject: Subject, _: r.ApplyCron) -> None:
        _workflow, cron = await self._compile(subject.workspace, subject.config_map)
        if cron is None:
            return
        path = f"{subject.argo('cronworkflows')}/{cron['metadata']['name']}"
        there = await self._api.get(path)
        uid = subject.workspace["metadata"]["uid"]
        if there is not None and uid not in {o.get("uid") for o in there["metadata"].get("ownerReferences") or ()}:
            raise ConfigError(
                "NameTaken", f"A CronWorkflow {cron['metadata']['name']!r} is there, and not this Workspace's.",
                fix="Rename or delete it, or name the Workspace otherwise.",
            )  # fmt: skip
        self._seen("cronworkflows", await self._api.apply(path, cron), quiet=False)

    async def _suspend_cron(self, subject: Subject, action: r.SuspendCron) -> None:
        await self._api.merge(f"{subject.argo('cronworkflows')}/{action.name}", {"spec": {"suspend": True}})

    async def _delete_cron(self, subject: Subject, action: r.DeleteCron) -> None:
        await self._api.delete(f"{subject.argo('cronworkflows')}/{action.name}")

    async def _delete_serving(self, subject: Subject, _: r.DeleteServing) -> None:
        name = subject.workspace["metadata"]["name"]
        uid = subject.workspace["metadata"]["uid"]
        for path in (f"/apis/apps/v1/namespaces/{subject.namespace}/deployments/{name}",
                     f"/apis/policy/v1/namespaces/{subject.namespace}/poddisruptionbudgets/{name}",
                     f"/api/v1/namespaces/{subject.namespace}/services/{name}"):  # fmt: skip
            try:
                found = await self._api.get(path)
            except ApiError as error:
                if error.status not in FORBIDDEN:
                    raise
                found = None  # not a namespace where we deploy
            owners = (found or {}).get("metadata", {}).get("ownerReferences") or ()
            if any(owner.get("uid") == uid for owner in owners):
                await self._api.delete(path)

    async def _write_status(self, subject: Subject, action: r.WriteStatus) -> None:
        """Write what has changed, of the very object that was read: of two writers, one is told that it was late.

        Not by server-side apply: API servers of 1.20 were seen to leave a null where an object is no longer named,
        which no structural schema takes; and the patch is smaller.
        """
        known = subject.workspace["metadata"]
        metadata = {"resourceVersion": known["resourceVersion"], "uid": known["uid"]}
        patch = difference(subject.workspace.get("status") or {}, action.status)
        stored = await self._api.merge(f"{subject.path}/status", {"metadata": metadata, "status": patch})
        if stored is not None:
            subject.workspace = stored
            self._seen("workspaces", stored, quiet=True)

    async def _tell(self, subject: Subject, action: r.Tell) -> None:
        body = event_body(subject.workspace, action.told, COMPONENT, timestamp())
        try:
            await self._api.create(f"/api/v1/namespaces/{subject.namespace}/events", body)
        except ApiError as error:  # an Event that cannot be told must not keep the run from going on
            logs.warning("event_untold", reason=action.told.reason, why=error.message)


def _is_of_leaving_namespace(error: ApiError) -> bool:
    """Whether nothing may be created any more: ``NamespaceTerminating``, a cause that only the message tells."""
    return error.status in FORBIDDEN and "because it is being terminated" in error.message


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Object:
    """Return the merge patch (RFC 7396) that makes ``after`` of ``before``: null for what goes, lists whole."""
    patch: Object = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            inner = difference(old, value)
            if inner:
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch

"""What is known of each Workspace, gathered from the live copies: Workflows, schedule, wish, training."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.actions import FINALIZER
from controller.attempts import attempts_in
from controller.cluster_status import shown
from controller.intent import NOT_SERVED, Intent, Refusal, config_map_name, intent, not_served, offered, secret_names
from controller.kube_api import FORBIDDEN, Api, ApiError, Object
from controller.observed import Observed
from controller.observed_workflow import pod_of
from controller.reflector import Key, Reflector
from controller.training_log import events_in
from pipelines.names import cleanup_name, cron_name, is_cleanup
from pipelines.plan import Placement
from presets.annotations import PREFIX
from steps.contract import UID_LABEL, WORKSPACE_LABEL

FRESH_SECONDS = 30.0  # how old what was asked for one by one (ConfigMaps, Secrets) may be
LOG_SECONDS = 10.0
LOG_TIMEOUT_SECONDS = 3.0
LOG_LINES = {"tune": 20, "provision": 200}  # of the steps whose log is read while they run
OF_EVERY_NAMESPACE = "kube-root-ca.crt"  # a ConfigMap that Kubernetes itself puts there
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(slots=True)
class Wish:
    """A Workspace's intent, what it was made of, and when that was asked for."""

    made_of: tuple[Any, ...]
    asked_at: float
    config_name: str | None
    config_map: Object | None
    intent: Intent | Refusal


@dataclass(slots=True)
class Memory:
    """What is kept of one Workspace between two looks; all of it can be had again."""

    wish: Wish | None = None
    training: Mapping[str, Any] | None = None
    attempts: Mapping[str, Any] | None = None
    told_run: str = ""  # whose training and attempts these are: a Workflow
    told_of: str = ""  # the pod whose log was read last
    told_at: float = 0.0
    less_stored: tuple[Any, Any] | None = None  # the status as it was wanted, and as a CRD of fewer fields has kept it


class Observer:
    """Reads the live copies, and asks for what is not in them."""

    def __init__(
        self, api: Api, placement: Placement, workspaces: Reflector, workflows: Reflector, crons: Reflector
    ) -> None:
        self._api = api
        self._placement = placement
        self._offered = offered(placement)
        self._workspaces, self._workflows, self._crons = workspaces, workflows, crons
        self._of_workspace: dict[Key, set[str]] = defaultdict(set)  # names of Workflows
        self.memory: dict[Key, Memory] = defaultdict(Memory)

    def index(self, before: Object | None, after: Object | None) -> Key | None:
        """Note a Workflow that has come, changed or gone; return whose it is."""
        body = after or before
        key = owner_of(body) if body else None
        if body is None or key is None:
            return None
        names = self._of_workspace[key]
        (names.add if after else names.discard)(body["metadata"]["name"])
        if not names:
            del self._of_workspace[key]
        return key

    async def observe(self, key: Key) -> tuple[Observed, Object | None] | None:
        """Return what is known of the Workspace, and its ConfigMap; None when it is gone."""
        workspace = self._workspaces.objects.get(key)
        if workspace is None:
            self.memory.pop(key, None)
            return None
        less = self.memory[key].less_stored
        if less is not None and less[1] == workspace.get("status"):  # KAITO's CRD keeps less than we know
            workspace = {**workspace, "status": less[0]}
        namespace, name = key
        cron = self._crons.objects.get((namespace, cron_name(name)))
        found = [self._workflows.objects[namespace, run] for run in self._of_workspace.get(key, ())
                 if (namespace, run) in self._workflows.objects]  # fmt: skip
        uid = workspace["metadata"]["uid"]
        cleanup = self._workflows.objects.get((namespace, cleanup_name(name, uid)))
        runs = sorted(
            (run for run in found if not is_cleanup(run["metadata"])),
            key=lambda run: (run["metadata"]["creationTimestamp"], run["metadata"]["name"]),
        )
        own = [run for run in runs if not _is_of_another(run, uid)]
        wish = await self._wish(key, workspace)
        seen = Observed(
            workspace=workspace,
            intent=wish.intent,
            workflows=own,
            strangers=[run for run in runs if run not in own],
            cron=cron if cron is not None and owner_of(cron) == key else None,
            offered=self._offered,
            cleanup=cleanup,
            argo=self._workflows.known,
            makes_nodes=self._placement.nodes.provisioner != "byo",
            training=(told := await self._told(key, shown(workspace, own))).training,
            attempts=told.attempts,
            releases={run["metadata"]["name"]: run for run in found if is_cleanup(run["metadata"])},
        )
        return seen, wish.config_map

    async def _wish(self, key: Key, workspace: Object) -> Wish:
        metadata = workspace["metadata"]
        ours = {k: v for k, v in (metadata.get("annotations") or {}).items() if k.startswith(PREFIX)}
        made_of = (metadata["uid"], metadata["generation"], tuple(sorted(ours.items())))
        known = self.memory[key].wish
        now = time.monotonic()
        leaving = FINALIZER in metadata.get("finalizers", ()) and "deletionTimestamp" in metadata
        if known is not None and known.made_of != made_of:
            known = None
        depends = asks_for_others(workspace) or (known is not None and _lacks_rights(known.intent))
        if known is not None and (leaving or not depends or now - known.asked_at < FRESH_SECONDS):
            return known
        config_name = known.config_name if known is not None else config_map_name(workspace)
        config_map = await self._config_map(key[0], config_name)
        if isinstance(config_map, Refusal):
            self.memory[key].wish = refused = Wish(made_of, now, config_name, None, config_map)
            return refused
        same = known is not None and _version(config_map) == _version(known.config_map)
        if known is not None and same and isinstance(known.intent, Intent):
            known.asked_at = now
            return known
        missing = await self._missing_secrets(key[0], workspace)
        found = Wish(made_of, now, config_name, config_map, intent(workspace, config_map, missing, self._placement))
        self.memory[key].wish = found
        return found

    async def _config_map(self, namespace: str, name: str | None) -> Object | Refusal | None:
        """Return the ConfigMap that is named; one is asked for in any case, which tells whether we have rights here."""
        try:
            found = await self._api.get(f"/api/v1/namespaces/{namespace}/configmaps/{name or OF_EVERY_NAMESPACE}")
        except ApiError as error:
            if error.status == 403:
                return not_served(namespace)
            raise
        return found if name else None

    async def _missing_secrets(self, namespace: str, workspace: Object) -> list[str]:
        """Return the named Secrets that are not there; their contents are not read."""
        missing = []
        for name in sorted(secret_names(workspace)):
            try:
                found = await self._api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}", accept=METADATA_ONLY)
            except ApiError as error:
                if error.status in FORBIDDEN:  # whoever installed us does not want us to look
                    continue
                raise
            if found is None:
                missing.append(name)
        return missing

    async def _told(self, key: Key, runs: Sequence[Object]) -> Memory:
        """Return what the pod that trains, or gets a node, says of itself in the run that is shown, now and then."""
        memory = self.memory[key]
        run = str(runs[-1]["metadata"]["name"]) if runs else ""
        if run != memory.told_run:  # what another has logged is nothing of this one's
            memory.told_run, memory.told_of, memory.training, memory.attempts = run, "", None, None
        step, pod = _telling(runs[-1]) if runs else ("", "")
        if pod and (pod != memory.told_of or time.monotonic() - memory.told_at >= LOG_SECONDS):
            path = f"/api/v1/namespaces/{key[0]}/pods/{pod}/log"
            text = await self._log(path, {"container": "main", "tailLines": str(LOG_LINES[step])})
            if step == "provision":
                memory.attempts = attempts_in(text.splitlines())
            elif (events := events_in(text.splitlines())) or pod != memory.told_of:
                memory.training = events[-1] if events else None
            memory.told_of, memory.told_at = pod, time.monotonic()
        return memory

    async def _log(self, path: str, query: Mapping[str, str]) -> str:
        """Return the end of a log, empty where it does not come soon: a kubelet that is away must not hold us up."""
        try:
            return await asyncio.wait_for(self._api.text(path, query), LOG_TIMEOUT_SECONDS)
        except TimeoutError:
            return ""


def _telling(run: Object) -> tuple[str, str]:
    """Return (step, pod) of the step that runs now and whose log is read."""
    return next(((step, pod) for step in LOG_LINES if (pod := pod_of(run, step))), ("", ""))


def asks_for_others(workspace: Object) -> bool:
    """Whether what the Workspace means depends on objects that are not watched."""
    return bool((workspace.get("tuning") or {}).get("config") or secret_names(workspace))


def _is_of_another(run: Object, uid: str) -> bool:
    """Whether the Workflow is of an earlier Workspace of the same name, whose garbage is not collected yet."""
    owners = run["metadata"].get("ownerReferences") or ()
    if (run["metadata"].get("labels") or {}).get(UID_LABEL, uid) != uid:  # a schedule's runs are owned by that
        return True
    return any(owner["kind"] == "Workspace" and owner["uid"] != uid for owner in owners)


def must_ask_again(seen: Observed) -> bool:
    """Whether what is not watched may change what is to be done: a ConfigMap, or a Secret that was missing."""
    names_config = bool((seen.workspace.get("tuning") or {}).get("config"))
    refused = isinstance(seen.intent, Refusal)
    return names_config or _lacks_rights(seen.intent) or (refused and asks_for_others(seen.workspace))


def is_telling(seen: Observed) -> bool:
    """Whether a pod is at work whose log is read."""
    runs = shown(seen.workspace, seen.workflows)
    return bool(runs) and bool(_telling(runs[-1])[1])


def _lacks_rights(intent: Intent | Refusal) -> bool:
    return isinstance(intent, Refusal) and intent.reason == NOT_SERVED


def owner_of(body: Object) -> Key | None:
    """Return whose a Workflow or a CronWorkflow is, None when it is no Workspace's."""
    metadata = body["metadata"]
    name = (metadata.get("labels") or {}).get(WORKSPACE_LABEL)
    return (metadata.get("namespace", ""), name) if name else None


def _version(body: Object | None) -> str:
    return str(body["metadata"]["resourceVersion"]) if body else ""

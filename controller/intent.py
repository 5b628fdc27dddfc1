"""What a Workspace on the cluster asks for: a plan, or the reasons why there is none.  Pure.

The rules are those of the command line. What the schema cannot state (the ConfigMap's contents, whether the training
fits the machine, whether Secrets are there) is judged here, so that it is said at once and not by a pod.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from controller.kube_api import Object
from controller.loading import config_name, errors_of, resolved, surroundings
from controller.planning import cluster_plan, plan_status
from pipelines.plan import Placement, Plan
from presets.errors import ConfigError, FieldError, InvalidInput
from presets.manifest import ConfigMap, parse_workspace
from presets.training_config import CONFIG_MAP_KEY
from presets.workspace import Workspace

HASH, REVISION = "workspace.kaito.io/hash", "workspace.kaito.io/revision"  # KAITO's, on the Workspace
NOT_SERVED = "NamespaceNotServed"
MARKED = "run.kaiflow.dev/workspace-uid"  # whose these are: a copy of the Workspace has not been run


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing runs."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to run; small, since every Workspace's is kept."""

    revision: str  # ten hex digits over all that is asked for
    run: str  # name of its Workflow
    asked: str  # generation and ConfigMap that it was made of: tells a run of today's wish from one of long ago
    scheduled: bool
    serves: bool  # what was served before goes where this is False
    plan_status: Mapping[str, Any]


def intent(
    body: Object, config_map: Object | None, missing_secrets: Iterable[str], placement: Placement
) -> Intent | Refusal:
    """Return what the Workspace asks for on a cluster that offers ``placement``."""
    try:
        plan = planned(body, config_map, missing_secrets, placement)
    except InvalidInput as invalid:
        return Refusal(invalid.errors[0].reason, "; ".join(map(str, invalid.errors)))
    except ConfigError as error:
        return Refusal(error.reason, f"{error.message} {error.fix}".strip())
    recipe = plan.recipe
    return Intent(
        recipe.revision, plan.name, asked(body, config_map), recipe.schedule is not None, recipe.deploy.enabled,
        plan_status(plan),
    )  # fmt: skip


def planned(body: Object, config_map: Object | None, missing_secrets: Iterable[str], placement: Placement) -> Plan:
    """Return the plan of the Workspace.

    Raises:
        InvalidInput: it breaks rules: all of them.
        ConfigError: the training fits no machine, or it does not tune.
    """
    name = body["metadata"]["name"]
    manifest = parse_workspace(without_status(body), name)
    workspace = manifest.workspace or manifest.rest
    if workspace is not None and workspace.tuning is None and workspace.inference is not None:
        raise ConfigError("NotTuning", "It serves and does not tune.", fix="KAITO's own controller does that.")
    maps = _config_maps(workspace, config_map)
    errors = [*errors_of(manifest, maps, surroundings(), config_required=True), *_missing(workspace, missing_secrets)]
    if errors or manifest.workspace is None:
        raise InvalidInput(name, errors)
    return cluster_plan(resolved(manifest.workspace, maps), placement)


def not_served(namespace: str) -> Refusal:
    """Return why nothing runs in a namespace in which the controller has no rights, and its steps no accounts."""
    return Refusal(
        NOT_SERVED,
        f"This kaiflow does not run Workspaces in the namespace {namespace!r}. Add it to `namespaces` of the chart: "
        "helm upgrade kaiflow … --reset-then-reuse-values --set 'namespaces={…}', those served already named too.",
    )


def started(workspace: Object) -> str:
    """Return the revision whose run was started last, empty where none was: in a copy, a backup that was restored."""
    metadata = workspace["metadata"]
    marks = metadata.get("annotations") or {}
    return str(marks.get(HASH, "")) if marks.get(MARKED) in (None, metadata.get("uid")) else ""


def was_run(workspace: Object) -> bool:
    """Whether a run of this very Workspace was ever started."""
    metadata = workspace["metadata"]
    return bool(started(workspace)) or (metadata.get("annotations") or {}).get(MARKED) == metadata.get("uid")


def without_status(body: Object) -> Object:
    """Return the Workspace as its user wrote it."""
    return {key: value for key, value in body.items() if key != "status"}


def asked(body: Object, config_map: Object | None) -> str:
    """Return which version of the Workspace and of its ConfigMap this is, as a label's value."""
    version = config_map["metadata"]["resourceVersion"] if config_map else "0"
    return f"{body['metadata']['generation']}.{version}"


def offered(placement: Placement) -> str:
    """Return what a cluster offers and by which kaiflow, as a label's value: of two that are equal, the same."""
    machines = placement.machines.read_bytes() if placement.machines else b""  # what is in the file, not where it is
    named = {**asdict(placement), "machines": hashlib.sha256(machines).hexdigest()}
    told = json.dumps([version("kaiflow"), named], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:10]


def config_map_name(body: Object) -> str | None:
    """Return the name of the ConfigMap that the Workspace names, None when it names none of its own."""
    workspace = parse_workspace(without_status(body), body["metadata"]["name"]).workspace
    return config_name(workspace) if workspace else None


def secret_names(body: Object) -> set[str]:
    """Return the Secrets that the Workspace names."""
    tuning = body.get("tuning") or {}
    source, output = tuning.get("input") or {}, tuning.get("output") or {}
    options = (tuning.get("preset") or {}).get("presetOptions") or {}
    named = [
        output.get("imagePushSecret"), options.get("modelAccessSecret"), *(source.get("imagePullSecrets") or ()),
        *(options.get("imagePullSecrets") or ()),
    ]  # fmt: skip
    return {name for name in named if isinstance(name, str) and name}


def _config_maps(workspace: Workspace | None, config_map: Object | None) -> dict[str, ConfigMap]:
    name = config_name(workspace) if workspace else None
    if name is None or config_map is None:
        return {}
    data = config_map.get("data") or {}
    return {name: ConfigMap(name, {k: str(v) for k, v in data.items() if k == CONFIG_MAP_KEY})}


def _missing(workspace: Workspace | None, missing: Iterable[str]) -> list[FieldError]:
    if workspace is None:
        return []
    return [
        FieldError(
            "tuning", "SecretNotFound", f"The Secret {name!r} is not in the namespace.",
            f"kubectl create secret docker-registry {name} --docker-server=… --docker-username=… --docker-password=…"
        )
        for name in sorted(missing)
    ]  # fmt: skip

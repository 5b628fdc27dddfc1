"""``kaiflow plan`` and ``kaiflow render``: the run before it runs, for people and for a cluster."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pydantic.alias_generators import to_camel

from controller.machine_plan import Machine, given, machine, machine_lines
from controller.output import Format, write, write_data, write_table, yaml_text
from pipelines.plan import Placement, Plan, serves_on_node, user_volumes
from pipelines.plan import plan as make_plan
from presets.errors import ConfigError
from presets.gpus import Sku, find_sku, skus
from presets.manifest import without_nulls
from presets.node_request import of_cloud, require_attempts, require_offered
from presets.recipe import Origin, Recipe
from steps.contract import Verb


def write_plan(plan: Plan, form: Format, dataset_tokens: int | None, done: Collection[Verb]) -> None:
    """Print the plan: its steps, the machine and what it will take, then every value with its origin.

    ``done`` are the steps whose work is finished already.
    """
    recipe = plan.recipe
    if form in (Format.JSON, Format.YAML):
        told = {**plan_json(plan, dataset_tokens), "finished": [step.name for step in plan.steps if step.verb in done]}
        write_data({**told, "refused": _as_data(_refused(plan))}, form)
        return
    write(f"{recipe.name}   {recipe.method} of {recipe.model.preset}   workflow {plan.name}")
    write("")
    write_table(
        ("STEP", "AFTER", "NEEDS", "FINISHED"),
        [
            (s.name, ", ".join(s.after), "GPU if there is one" if s.on_gpu else "CPU", "yes" if s.verb in done else "")
            for s in plan.steps
        ],
    )
    if done:
        write("Finished here, by an earlier run: found again, unless the data has changed where it comes from.")
    write("")
    for line in machine_lines(_machine(plan, dataset_tokens)):
        write(line)
    if recipe.budget.max_seconds is not None:
        write(
            f"The training ends after {recipe.budget.max_seconds / 3600:.2g} h at the latest, and packs the best it has"
        )
    problem = _refused(plan)
    if problem is not None:
        write(f"Such a cluster refuses it: {problem.message} {problem.fix}")
    write(f"Images on a cluster: {', '.join(_pinned(image) for image in _images(plan).values())}")
    if len(plan.node.attempts) > 1:
        write(f"If it is not to be had: {', then '.join(map(str, plan.node.attempts[1:]))}")
    write("")
    values = [(path, _shown(value), origin) for path, value, origin in recipe.values() if value not in (None, (), {})]
    write_table(("VALUE", "IS", "FROM"), values)


def _refused(plan: Plan) -> ConfigError | None:
    """Return why a cluster like this would not take the Workspace, None where it would."""
    try:
        cluster_plan(plan.recipe, plan.placement)
    except ConfigError as error:
        return error
    return None


def _images(plan: Plan) -> dict[str, str]:
    """Return the images of the pods by what they do; the server's where one is deployed."""
    images = plan.placement.images
    found = {"step": images.step, "tune": images.tune, "serve": images.serve}
    return {name: image for name, image in found.items() if name != "serve" or plan.recipe.deploy.enabled}


def _pinned(image: str) -> str:
    return image if "@" in image else f"{image} (by tag)"


def plan_status(plan: Plan) -> dict[str, Any]:
    """Return what ``status.plan`` says: machine, attempts, memory, estimate; or why the training fits none."""
    try:
        told = plan_json(plan)
    except ConfigError as error:
        return {"refused": _as_data(error)}
    shown = ("model", "training_steps", "machine", "attempts", "images", "memory_bytes", "step_cut", "estimate")
    found: dict[str, Any] = without_nulls(_camelled({key: told[key] for key in shown if told[key]}))
    return {**found, "values": list(_set_values(plan.recipe))}


def _set_values(recipe: Recipe) -> Iterator[str]:
    """Yield the values that are no defaults, each with who has set it; no addresses, which may hold signatures."""
    for path, value, origin in recipe.values():
        if origin != Origin.DEFAULT and path != "data.urls" and value not in (None, (), {}):
            yield f"{path} = {_shown(value)} ({origin})"


def _as_data(error: ConfigError | None) -> dict[str, str] | None:
    return {"reason": error.reason, "message": error.message, "fix": error.fix} if error else None


def _camelled(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Return the value with the keys of Kubernetes' style."""
    if isinstance(value, Mapping):
        return {to_camel(str(key)): _camelled(inner) for key, inner in value.items()}
    return [_camelled(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _machine(plan: Plan, dataset_tokens: int | None = None) -> Machine:
    """Return the machine of the plan.

    Raises:
        ConfigError: the training does not fit it, or none.
    """
    if plan.node.placement.provisioner == "byo" and not plan.recipe.node.instance_type:
        return given(plan.recipe)
    return machine(plan.recipe, _machines(plan), dataset_tokens)


def _machines(plan: Plan) -> dict[str, Sku]:
    """Return the machines to choose from: all where one is named, else those of the cloud."""
    table = skus(plan.placement.machines)
    return table if plan.recipe.node.instance_type else of_cloud(table, plan.placement.nodes.cloud)


def plan_json(plan: Plan, dataset_tokens: int | None = None) -> dict[str, Any]:
    """Return the plan as data.

    ``steps``, ``machine``, ``attempts``, ``images``, ``memory_bytes`` by cause, ``step_cut``, ``estimate``, ``values``.
    """
    recipe = plan.recipe
    found = _machine(plan, dataset_tokens)
    need = found.fit and found.fit.need
    return {
        "name": recipe.name,
        "namespace": recipe.namespace,
        "revision": recipe.revision,
        "workflow": plan.name,
        "steps": [{"name": s.name, "after": list(s.after), "gpu": s.on_gpu} for s in plan.steps],
        "last": plan.last.name,
        "model": {
            "preset": recipe.model.preset,
            "hugging_face_id": recipe.model.hugging_face_id,
            "revision": recipe.model.revision,
            "image": recipe.model.weights_image,
        },
        "training_steps": recipe.training.max_steps if recipe.training.max_steps > 0 else None,
        "machine": found.to_json(),
        "attempts": [asdict(attempt) for attempt in plan.node.attempts],
        "images": _images(plan),
        "memory_bytes": need and {**asdict(need), "total": need.total},
        "step_cut": found.fit and asdict(found.fit.levers),
        "estimate": found.estimate and asdict(found.estimate),
        "budget_seconds": recipe.budget.max_seconds,
        "values": [{"path": path, "value": value, "origin": str(origin)} for path, value, origin in recipe.values()],
    }


def cluster_plan(recipe: Recipe, placement: Placement) -> Plan:
    """Return the plan of the run on a cluster.

    Raises:
        ConfigError: no machine can be asked for, the training fits none, its servers have no room there, or it needs
            what only one's own machine has.
    """
    if recipe.model.folder:
        raise ConfigError(
            "FolderElsewhere",
            f"The weights are in a folder of one machine, {recipe.model.folder}, which no pod sees.",
            fix="Put them into an image and name it in presetOptions.image, or remove kaiflow.dev/weights-folder.",
        )
    plan = make_plan(recipe, placement)
    _require_volumes(plan)
    _machine(plan)  # refuses what does not fit
    require_attempts(plan.node)
    require_offered(plan.node, skus(placement.machines))
    _require_room(plan)
    return plan


def _require_volumes(plan: Plan) -> None:
    """Refuse a node's own folders: who may write Workspaces may not therefore read whatever lies on nodes."""
    named = [name for name, source in user_volumes(plan).items() if "hostPath" in source]
    if named:
        raise ConfigError(
            "HostPathRefused",
            f"tuning.{named[0]}.volumeSource names a folder of a node (hostPath).",
            fix="Name a volume of the cluster's, such as persistentVolumeClaim or nfs.",
        )


def _require_room(plan: Plan) -> None:
    """Refuse more servers than the node that they go on has GPUs: each takes one."""
    deploy, gpus = plan.recipe.deploy, plan.node.gpus
    if find_sku(plan.node.attempts[0].instance_type, skus(plan.placement.machines)) is None:
        return  # how many it has is not known
    if serves_on_node(plan.recipe) and plan.node.placement.provisioner != "byo" and deploy.replicas > gpus:
        raise ConfigError(
            "TooManyReplicas",
            f"{deploy.replicas} servers take a GPU each, and the node that has trained has {gpus}.",
            fix="Set tuning.deploy.replicas to that, or tuning.deploy.runtime to transformers, which serves on CPUs.",
        )


def rendered(recipe: Recipe, form: Format, placement: Placement) -> str:
    """Return the Workflow, and the CronWorkflow where there is a schedule, as YAML documents or a JSON List."""
    from pipelines.workflow import compile_cron, compile_workflow

    plan = cluster_plan(recipe, placement)
    cron = compile_cron(plan)
    objects = [compile_workflow(plan)] + ([cron] if cron else [])
    if form is Format.JSON:
        body: Mapping[str, Any] = (
            objects[0] if len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": objects}
        )
        return json.dumps(body, indent=2)
    return "\n---\n".join(yaml_text(body) for body in objects)


def _shown(value: Any) -> str:  # noqa: ANN401  (a value of the Recipe)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    flat = " ".join(text.split())
    return flat if len(flat) <= 70 else flat[:67] + "..."

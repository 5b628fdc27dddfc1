"""``kaiflow plan`` and ``kaiflow render``: the run before it runs, for people and for a cluster."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from controller.output import Format, write, write_data, write_table, yaml_text
from pipelines.plan import Placement, Plan
from pipelines.plan import plan as make_plan
from presets.catalogue import Model, find_model
from presets.errors import ConfigError
from presets.fit import Fit, fit, fitting, need_of
from presets.gpus import Sku, find_sku, skus
from presets.levers import first
from presets.memory import GIB
from presets.node_request import require_attempts
from presets.recipe import Recipe


def write_plan(recipe: Recipe, form: Format) -> None:
    """Print the plan: its steps, then every value with its origin."""
    plan = make_plan(recipe)
    if form in (Format.JSON, Format.YAML):
        write_data(plan_json(plan), form)
        return
    write(f"{recipe.name}   {recipe.method} of {recipe.model.preset}   workflow {plan.name}")
    write("")
    write_table(
        ("STEP", "AFTER", "NEEDS"),
        [(s.name, ", ".join(s.after), "GPU if there is one" if s.on_gpu else "CPU") for s in plan.steps],
    )
    write("")
    for line in _machine_lines(machine(recipe)):
        write(line)
    write("")
    values = [(path, _shown(value), origin) for path, value, origin in recipe.values() if value not in (None, (), {})]
    write_table(("VALUE", "IS", "FROM"), values)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the training goes, and how its step is cut there; without a machine, what is asked for."""

    sku: Sku | None  # None: no machine is named
    fit: Fit | None  # None: the model's shape is not known
    named: bool  # in the Workspace; else it is the cheapest that fits

    def to_json(self) -> dict[str, Any] | None:
        """Return the machine as data."""
        if self.sku is None:
            return None
        price = self.sku.price
        return {
            "name": self.sku.name, "named": self.named, "gpu": self.sku.gpu.name, "gpus": self.sku.count,
            "memory_bytes": self.sku.gpu.memory_bytes, "price": price and price.model_dump(),
        }  # fmt: skip


def machine(recipe: Recipe) -> Machine:
    """Return the machine that is named, or the cheapest that the training fits.

    Raises:
        ConfigError: the training does not fit the machine that is named, or fits none that is known.
    """
    model, table, named = find_model(recipe.model.preset), skus(), recipe.node.instance_type
    sku = find_sku(named, table)
    if model is None or (named and sku is None):
        return Machine(None, _as_asked(recipe, model), named=bool(named))
    if sku is not None:
        return Machine(sku, fit(recipe, model, sku), named=True)
    if model.shape is None:
        return Machine(None, None, named=False)
    found = fitting(recipe, model, table.values())
    if not found:
        raise ConfigError(
            "InsufficientMemory",
            f"{recipe.model.preset} with this training fits no GPU that is known.",
            fix="Lower TrainingArguments.max_length, or set tuning.method to qlora.",
        )
    return Machine(found[0], fit(recipe, model, found[0]), named=False)


def _as_asked(recipe: Recipe, model: Model | None) -> Fit | None:
    if model is None or model.shape is None:
        return None
    levers = first(recipe.training)
    return Fit(levers, need_of(recipe, model, model.shape)(levers))


def _machine_lines(found: Machine) -> Iterator[str]:
    if found.sku is not None:
        sku = found.sku
        price = f"${sku.price.usd_per_hour:.2f} an hour in {sku.price.region}" if sku.price else "price not known"
        how = "" if found.named else ", the cheapest that fits"
        yield f"On a cluster: {sku.name}{how}: {sku.count} x {sku.gpu.name}, {price}"
    elif found.named:
        yield "On a cluster: a machine that is not in the table"
    if found.fit is None:
        yield "GPU memory: not known before the weights are read"
        return
    terms = sorted(asdict(found.fit.need).items(), key=lambda term: -term[1])
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in terms if size >= GIB / 20)
    yield f"GPU memory: about {found.fit.need.total / GIB:.1f} GiB ({shown})"
    yield f"A step: {found.fit.levers}"


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as data: ``steps``, ``machine``, ``memory_bytes`` by cause, ``step_cut``, and ``values``."""
    recipe = plan.recipe
    found = machine(recipe)
    need = found.fit and found.fit.need
    return {
        "name": recipe.name,
        "namespace": recipe.namespace,
        "revision": recipe.revision,
        "workflow": plan.name,
        "steps": [{"name": s.name, "after": list(s.after), "gpu": s.on_gpu} for s in plan.steps],
        "last": plan.last.name,
        "machine": found.to_json(),
        "memory_bytes": need and {**asdict(need), "total": need.total},
        "step_cut": found.fit and asdict(found.fit.levers),
        "values": [{"path": path, "value": value, "origin": str(origin)} for path, value, origin in recipe.values()],
    }


def rendered(recipe: Recipe, form: Format, placement: Placement) -> str:
    """Return the Workflow, and the CronWorkflow where there is a schedule, as YAML documents or a JSON List."""
    from pipelines.templates import Images
    from pipelines.workflow import compile_cron, compile_workflow

    plan = make_plan(recipe, placement)
    require_attempts(plan.node)
    cron = compile_cron(plan, Images())
    objects = [compile_workflow(plan, Images())] + ([cron] if cron else [])
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

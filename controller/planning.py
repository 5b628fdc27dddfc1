"""``kaiflow plan`` and ``kaiflow render``: the run before it runs, for people and for a cluster."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from controller.output import Format, write, write_data, write_table, yaml_text
from pipelines.plan import Plan
from pipelines.plan import plan as make_plan
from presets.catalogue import find_model
from presets.memory import GIB, MemoryNeed, memory_need
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
    write(_memory_line(memory(recipe)))
    write("")
    values = [(path, _shown(value), origin) for path, value, origin in recipe.values() if value not in (None, (), {})]
    write_table(("VALUE", "IS", "FROM"), values)


def memory(recipe: Recipe) -> MemoryNeed | None:
    """Return what the training needs of a GPU's memory, None for a model whose shape is not known."""
    model = find_model(recipe.model.preset)
    if model is None:
        return None
    return memory_need(model, recipe, recompute=recipe.training.gradient_checkpointing)


def _memory_line(need: MemoryNeed | None) -> str:
    if need is None:
        return "GPU memory: not known before the weights are read"
    terms = sorted(asdict(need).items(), key=lambda term: -term[1])
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in terms if size >= GIB / 20)
    return f"GPU memory: about {need.total / GIB:.1f} GiB ({shown})"


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as data: ``steps``, ``memory_bytes`` by cause, and ``values``."""
    recipe = plan.recipe
    need = memory(recipe)
    return {
        "name": recipe.name,
        "namespace": recipe.namespace,
        "revision": recipe.revision,
        "workflow": plan.name,
        "steps": [{"name": s.name, "after": list(s.after), "gpu": s.on_gpu} for s in plan.steps],
        "last": plan.last.name,
        "memory_bytes": need and {**asdict(need), "total": need.total},
        "values": [{"path": path, "value": value, "origin": str(origin)} for path, value, origin in recipe.values()],
    }


def rendered(recipe: Recipe, form: Format) -> str:
    """Return the Workflow, and the CronWorkflow where there is a schedule, as YAML documents or a JSON List."""
    from pipelines.templates import Images
    from pipelines.workflow import compile_cron, compile_workflow

    plan = make_plan(recipe)
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

"""What the node of a run has cost: from the asking for it to its giving back, at the table's price.  Pure.

Told once, when the node has been given back: a figure that grows would write every status every few seconds. What a
node costs while it serves is not the run's.
"""

from collections.abc import Mapping
from typing import Any

from controller.durations import parse
from controller.observed_steps import StepStatus, output
from presets.gpus import find_sku, skus
from steps.contract import PROVISIONER_LABEL


def cost(workflow: Mapping[str, Any], steps: Mapping[str, StepStatus]) -> dict[str, Any]:
    """Return ``nodeSeconds``, and ``usd`` where the price is known; empty while the node is held, or was given."""
    if (workflow["metadata"].get("labels") or {}).get(PROVISIONER_LABEL) == "byo":
        return {}
    machine = output(steps, "provision", "instance-type")
    provision, release = steps.get("provision"), steps.get("release")
    if not machine or provision is None or release is None or release.phase != "Succeeded":
        return {}
    if not provision.started_at or not release.finished_at or "kept" in output(steps, "release", "released"):
        return {}
    seconds = (parse(release.finished_at) - parse(provision.started_at)).total_seconds()
    sku = find_sku(machine, skus())
    price = sku.price.usd_per_hour if sku and sku.price else None
    return {"nodeSeconds": round(seconds), **({"usd": round(seconds / 3600 * price, 2)} if price else {})}

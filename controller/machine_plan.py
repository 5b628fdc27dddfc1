"""On which machine does the training go, how is its step cut there, and what will that take?"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from presets.catalogue import Model, find_model
from presets.errors import ConfigError
from presets.estimate import Estimate, estimate
from presets.fit import Fit, fit, fit_or_next, fitting, need_of
from presets.gpus import Sku, find_sku, unknown_sku
from presets.levers import first
from presets.memory import GIB
from presets.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the training goes, and how its step is cut there; without a machine, what is asked for."""

    sku: Sku | None  # None: no machine is named
    fit: Fit | None  # None: the model's shape is not known
    named: str | None  # in the Workspace; else it is the cheapest that fits
    estimate: Estimate | None = None  # None: the machine, or the model's shape, is not known
    unknown: str = ""  # the remedy for a machine that is not in the table
    given: bool = False  # by others, whichever it will be

    def to_json(self) -> dict[str, Any] | None:
        """Return the machine as data."""
        if self.sku is None:
            return None
        price = self.sku.price
        return {
            "name": self.sku.name, "named": self.named is not None, "gpu": self.sku.gpu.name, "gpus": self.sku.count,
            "memory_bytes": self.sku.gpu.memory_bytes, "price": price and price.model_dump(),
        }  # fmt: skip


def machine(recipe: Recipe, table: Mapping[str, Sku], dataset_tokens: int | None = None) -> Machine:
    """Return the machine of ``table`` that is named, or the cheapest that the training fits.

    Raises:
        ConfigError: the training does not fit the machine that is named, or fits none that is known.
    """
    model, named = find_model(recipe.model.preset), recipe.node.instance_type
    sku = find_sku(named, table)
    if model is None or (named and sku is None):
        return Machine(None, _as_asked(recipe, model), named, unknown=unknown_sku(named, table) if named else "")
    if sku is None:
        if model.shape is None:
            return Machine(None, None, None)
        found = fitting(recipe, model, table.values())
        if not found:
            raise _too_large_for_all(recipe, model, table)
        sku = found[0]
    fitted = fit_or_next(recipe, model, sku, table)
    if fitted is None or model.shape is None:
        return Machine(sku, fitted, named)
    told = estimate(model.shape, recipe.training, fitted.levers, sku, dataset_tokens)
    return Machine(sku, fitted, named, told)


def given(recipe: Recipe) -> Machine:
    """Return what is known of a node that others give, whichever it will be."""
    return Machine(None, _as_asked(recipe, find_model(recipe.model.preset)), None, given=True)


def _too_large_for_all(recipe: Recipe, model: Model, table: Mapping[str, Sku]) -> ConfigError:
    """Return the refusal of the largest card, whose terms tell what is too large."""
    usable = [sku for sku in table.values() if sku.gpu.usable]
    what = f"{recipe.model.preset} with this training fits no machine that is known."
    if not usable:
        return ConfigError("InsufficientMemory", what, fix="Add one with a file of GPU machines (--gpus).")
    largest = max(usable, key=lambda sku: (sku.gpu.memory_mib, sku.name))
    try:
        fit(recipe, model, largest)
    except ConfigError as error:
        return ConfigError(error.reason, f"{what} {error.message}", fix=error.fix)
    raise AssertionError("unreachable")


def _as_asked(recipe: Recipe, model: Model | None) -> Fit | None:
    if model is None or model.shape is None:
        return None
    levers = first(recipe.training)
    return Fit(levers, need_of(recipe, model, model.shape)(levers))


def machine_lines(found: Machine) -> Iterator[str]:
    """Yield the machine, the memory by cause, the step and the estimate, a line each."""
    if found.sku is not None:
        sku = found.sku
        price = f"${sku.price.usd_per_hour:.2f} an hour in {sku.price.region}" if sku.price else "price not known"
        chosen = "the cheapest that fits" if sku.price else "of those that fit, whose prices are not known"
        how = "" if found.named else f", {chosen}"
        yield f"On a cluster: {sku.name}{how}: {sku.count} x {sku.gpu.name}, {price}"
    elif found.given:
        yield "On a cluster: a node that you give, by the Workspace's labels; its card is looked at when it is taken"
    elif found.named:
        yield f"On a cluster: {found.named}, which is not in the table. {found.unknown}"
    if found.fit is None:
        yield "GPU memory: not known before the weights are read"
        return
    terms = sorted(asdict(found.fit.need).items(), key=lambda term: -term[1])
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in terms if size >= GIB / 20)
    yield f"GPU memory: about {found.fit.need.total / GIB:.1f} GiB ({shown})"
    yield f"A step: {found.fit.levers}"
    if found.estimate is not None:
        yield from _estimate_lines(found.estimate)


def _estimate_lines(told: Estimate) -> Iterator[str]:
    what = "The node" if told.tokens is not None else "A million tokens"
    usd = f"${told.usd}" if told.usd else "price not known"
    yield f"{what}: {told.hours} h, {usd}, at {told.tokens_per_second} tokens a second"
    yield f"  assuming {'; '.join(told.assumptions)}"

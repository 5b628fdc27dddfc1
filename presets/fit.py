"""Does a training fit a card, and how is its step cut then?  What does not is refused by its largest terms."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

from presets.catalogue import Model, Shape
from presets.errors import ConfigError
from presets.gpus import Sku
from presets.levers import FILLED, Levers, choose, first, ladder
from presets.memory import GIB, MemoryNeed, memory_need
from presets.recipe import Recipe

TERMS_TOLD = 2


@dataclass(frozen=True, slots=True)
class Fit:
    """One training on one card."""

    levers: Levers
    need: MemoryNeed


def lora_targets(recipe: Recipe, model: Model) -> tuple[str, ...]:
    """Return the modules that get an adapter, by the names that the architecture gives them."""
    targets = recipe.lora.target_modules
    return model.lora_targets if isinstance(targets, str) else tuple(targets)


def need_of(recipe: Recipe, model: Model, shape: Shape) -> Callable[[Levers], MemoryNeed]:
    """Return the memory that the training needs, as a function of how its step is cut."""
    targets = lora_targets(recipe, model)
    return lambda levers: memory_need(shape, targets, recipe.quantization, recipe.lora, recipe.training, levers)


def fit(recipe: Recipe, model: Model, sku: Sku) -> Fit | None:
    """Return how the training goes on one card of ``sku``, None for a model whose shape is not known.

    Raises:
        ConfigError: the card is too old, or its memory too small however the step is cut; the largest terms are named.
    """
    if not sku.gpu.usable:
        raise ConfigError(
            "GpuTooOld",
            f"{sku.name} has {sku.gpu.name} cards of compute capability {sku.gpu.capability}; 7.0 is needed.",
            fix="Name a machine with V100, T4 or newer cards.",
        )
    if model.shape is None:
        return None
    need = need_of(recipe, model, model.shape)
    training, bits = recipe.training, recipe.quantization.bits
    levers = choose(training, bits, lambda found: need(found).total, sku.gpu.memory_bytes)
    if levers is not None:
        return Fit(levers, need(levers))
    *_, least = ladder(first(training))
    needed, filled = need(least), sku.gpu.memory_bytes * FILLED
    raise ConfigError(
        "InsufficientMemory",
        f"The training needs {needed.total / GIB:.1f} GiB of a GPU however its step is cut: {_largest(needed)}."
        f" The {sku.gpu.name} of {sku.name} has {filled / GIB:.1f} GiB to fill.",
        fix=_remedy(recipe, needed),
    )


def fitting(recipe: Recipe, model: Model, skus: Iterable[Sku]) -> list[Sku]:
    """Return the machine types whose cards the training fits, the cheapest first, those without a price last."""
    found = []
    for sku in skus:
        try:
            fit(recipe, model, sku)
        except ConfigError:
            continue
        found.append(sku)
    return sorted(found, key=_cost)


def fit_or_next(recipe: Recipe, model: Model, sku: Sku, table: Mapping[str, Sku]) -> Fit | None:
    """Return how the training goes on ``sku``.

    Raises:
        ConfigError: it does not; the remedy names the cheapest machine of the same cloud that it fits.
    """
    try:
        return fit(recipe, model, sku)
    except ConfigError as error:
        others = fitting(recipe, model, (other for other in table.values() if other.provider == sku.provider))
        if not others or model.shape is None:
            raise
        price = others[0].price
        costs = f" (${price.usd_per_hour:.2f} an hour)" if price else ""
        fix = f"{error.fix} {others[0].name}{costs} would fit."
        raise ConfigError(error.reason, error.message, fix=fix) from None


def _cost(sku: Sku) -> tuple[bool, float, int, int, str]:
    hourly = sku.price.usd_per_hour if sku.price else 0.0
    return sku.price is None, hourly, sku.count, sku.gpu.memory_mib, sku.name


def _largest(need: MemoryNeed) -> str:
    terms = sorted(asdict(need).items(), key=lambda term: -term[1])[:TERMS_TOLD]
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in terms)


def _remedy(recipe: Recipe, need: MemoryNeed) -> str:
    largest = max(asdict(need).items(), key=lambda term: term[1])[0]
    if largest == "weights" and recipe.quantization.bits > 4:
        return "Set tuning.method to qlora, which keeps the base in four bits, or name a larger card."
    if largest in ("activations", "logits"):
        return (
            f"Lower TrainingArguments.max_length, which is {recipe.training.max_length_tokens}, or name a larger card."
        )
    if largest == "adapter":
        return f"Lower LoraConfig.r, which is {recipe.lora.r}, or name a larger card."
    return "Name a machine with a larger card, or a smaller model."

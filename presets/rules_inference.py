"""Does the ``inference`` block make sense?  KAITO's rules, the adapter rules at create as well as at update."""

from collections.abc import Iterator, Mapping, Sequence

from presets.errors import FieldError, did_you_mean
from presets.field_rules import check_access, check_image, check_preset_name
from presets.names import is_dns_subdomain
from presets.workspace import AdapterSpec, Inference, Workspace

MAX_ADAPTERS = 10


def check_inference(workspace: Workspace, presets: Sequence[str], gated: Mapping[str, bool]) -> Iterator[FieldError]:
    """Yield every rule that the block breaks; ``presets`` can be served, of some we know whether they are gated."""
    inference = workspace.inference
    if inference is None:
        return
    yield from _preset_or_template(inference, presets)
    if inference.preset is not None:
        yield from check_access(inference.preset, "inference.preset", gated)
    if len(inference.adapters) > MAX_ADAPTERS:
        yield FieldError(
            "inference.adapters",
            "TooMany",
            f"{len(inference.adapters)} adapters are more than {MAX_ADAPTERS}.",
            "Remove some.",
        )
    names: set[str] = set()
    vllm = workspace.metadata.annotations.get("kaito.sh/runtime", "vllm") == "vllm"
    for index, adapter in enumerate(inference.adapters):
        yield from _adapter(f"inference.adapters[{index}]", adapter, names, vllm)


def _preset_or_template(inference: Inference, presets: Sequence[str]) -> Iterator[FieldError]:
    if (inference.preset is None) == (inference.template is None):
        both = inference.preset is not None
        yield FieldError(
            "inference", "ExactlyOne",
            f"Exactly one of preset and template must be given, not {'both' if both else 'neither'}.",
            "Remove one." if both else "Name a preset.",
        )  # fmt: skip
    if inference.preset is not None:
        yield from check_preset_name("inference.preset.name", inference.preset.name)
        name = inference.preset.name.lower()
        if "/" not in name and name not in presets:
            yield FieldError(
                "inference.preset.name", "UnknownPreset", f"There is no preset {inference.preset.name!r}.",
                did_you_mean(name, presets, "Name the model by its Hugging Face id, organisation/model."),
            )  # fmt: skip


def _adapter(field: str, adapter: AdapterSpec, names: set[str], vllm: bool) -> Iterator[FieldError]:
    source = adapter.source
    if source is None:
        yield FieldError(f"{field}.source", "MissingField", "The adapter has no source.", "Name an image.")
        return
    name = source.name or ""
    if not is_dns_subdomain(name):
        yield FieldError(
            f"{field}.source.name",
            "InvalidName",
            f"{name!r} is not a name for an adapter.",
            "Give it a lower-case name.",
        )
    elif name in names:
        yield FieldError(f"{field}.source.name", "Duplicate", f"Two adapters are called {name!r}.", "Rename one.")
    names.add(name)
    if source.urls:
        yield FieldError(f"{field}.source.urls", "NotSupported", "An adapter cannot come from URLs.", "Use an image.")
    if bool(source.image) == (source.volume_source is not None):
        yield FieldError(
            f"{field}.source",
            "ExactlyOne",
            "Exactly one of image and volumeSource must be given.",
            "Keep one.",
        )
    if source.image:
        yield from check_image(f"{field}.source.image", source.image)
    if adapter.strength is not None:
        yield from _strength(f"{field}.strength", adapter.strength, vllm)


def _strength(field: str, strength: str, vllm: bool) -> Iterator[FieldError]:
    if vllm:
        yield FieldError(
            field,
            "NotSupported",
            "vLLM has no adapter strength.",
            "Remove it, or annotate kaito.sh/runtime: transformers.",
        )
    try:
        value = float(strength)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        yield FieldError(
            field, "InvalidValue", f"{strength!r} is not a number from 0 to 1.", 'Write for example "0.8".'
        )

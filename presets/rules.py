"""Does this Workspace make sense?  One rule set for the command line, the controller and every version.

Each rule is a generator over the errors it finds, so that all errors of a file are reported at once.
The rules are KAITO v0.12's admission rules (``api/v1beta1/workspace_validation.go``) in our words, run
for both versions at create and at update; where ours differ, ``docs/kaito-compatibility.md`` says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from presets.annotations import ANNOTATIONS, PREFIX, annotation_value
from presets.errors import FieldError, did_you_mean
from presets.field_rules import (
    Errors,
    check_access,
    check_image,
    check_object_name,
    check_preset_name,
    check_url,
    missing,
    placeholder,
)
from presets.gpus import find_sku, skus
from presets.names import cron_problem, is_dns_label, is_machine, placeholders
from presets.rules_inference import check_inference
from presets.rules_output import check_deploy, check_output
from presets.workspace import DataSource, Preset, Tuning, Workspace

METHODS = ("lora", "qlora")
RESERVED_LABELS = ("kaito.sh/", "karpenter.kaito.sh/")
ANNOTATION_VALUES: Mapping[str, tuple[str, ...]] = {
    "kaito.sh/node-image-family": ("azurelinux", "ubuntu"),
    "kaito.sh/performance-mode": ("balanced", "interactivity", "throughput"),
    "kaito.sh/use-local-weights": ("true", "false"),
    "kaito.sh/runtime": ("vllm", "transformers"),
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the rules need to know beside the object itself."""

    tunable: Mapping[str, bool]  # preset name -> whether its weights need a Hugging Face token
    servable_only: Sequence[str] = ()  # presets that KAITO serves and kaiflow cannot tune
    private_hosts_allowed: bool = False  # on one's own machine a dataset may come from localhost


def check(workspace: Workspace, around: Surroundings) -> tuple[FieldError, ...]:
    """Return every rule that ``workspace`` breaks, in the order of the file."""
    return tuple(_all_rules(workspace, around))


def _all_rules(workspace: Workspace, around: Surroundings) -> Errors:
    yield from _name(workspace)
    yield from _annotations(workspace)
    yield from _either_tuning_or_inference(workspace)
    yield from _machine(workspace)
    yield from _selector(workspace)
    if workspace.tuning is not None:
        yield from _resource_of_tuning(workspace)
        at_hand = f"{PREFIX}weights-folder" in workspace.metadata.annotations
        yield from _tuning(workspace.tuning, around, weights_at_hand=at_hand)
    if workspace.inference is not None:
        yield from check_inference(workspace, (*around.tunable, *around.servable_only), around.tunable)


def _name(workspace: Workspace) -> Errors:
    name = workspace.metadata.name
    if not is_dns_label(name) or not name[0].isalpha():  # the Service is called so: RFC 1035
        yield FieldError(
            "metadata.name",
            "InvalidName",
            f"{name!r} is not a name that Kubernetes takes for a Service." if name else "The Workspace has no name.",
            "Use lower-case letters, digits and dashes, 63 at most, a letter first, such as tune-phi-3.",
        )
    if not is_dns_label(workspace.metadata.namespace):
        yield FieldError(
            "metadata.namespace", "InvalidName", f"{workspace.metadata.namespace!r} is not a namespace name.",
            "Use lower-case letters, digits and dashes.",
        )  # fmt: skip


def _annotations(workspace: Workspace) -> Errors:
    for key, allowed in ANNOTATION_VALUES.items():
        value = workspace.metadata.annotations.get(key)
        if value is not None and value not in allowed:
            yield FieldError(
                f"metadata.annotations[{key}]", "InvalidValue", f"{value!r} is not one of {', '.join(allowed)}.",
                "Use one of them, or remove the annotation.",
            )  # fmt: skip
    yield from _kaiflow_annotations(workspace.metadata.annotations)


def _kaiflow_annotations(annotations: Mapping[str, str]) -> Errors:
    for name, value in annotations.items():
        key = name.removeprefix(PREFIX)
        if key == name:
            continue
        field = f"metadata.annotations[{name}]"
        if key not in ANNOTATIONS:
            suggestion = did_you_mean(key, ANNOTATIONS, f"Known are {', '.join(ANNOTATIONS)}.")
            yield FieldError(field, "UnknownField", f"{name} is not an annotation of kaiflow.", suggestion)
            continue
        try:
            annotation_value(annotations, key)
        except ValueError as error:
            yield FieldError(field, "InvalidValue", f"{value!r} is not {error}.", f"Write {error}.")


def _either_tuning_or_inference(workspace: Workspace) -> Errors:
    if workspace.tuning is None and workspace.inference is None:
        yield FieldError(
            "tuning",
            "MissingField",
            "Either tuning or inference must be given, not neither.",
            "Add a tuning block.",
        )
    if workspace.tuning is not None and workspace.inference is not None:
        yield FieldError(
            "inference", "Conflict", "Either tuning or inference may be given, not both.",
            "Remove inference: a tuning Workspace serves its own result (tuning.deploy).",
        )  # fmt: skip


def _selector(workspace: Workspace) -> Errors:
    if workspace.resource is None:
        return
    selector = workspace.resource.label_selector
    for index, requirement in enumerate(selector.match_expressions):
        if requirement.operator != "In" or len(requirement.values) != 1:
            yield FieldError(
                f"resource.labelSelector.matchExpressions[{index}]", "InvalidSelector",
                f"{requirement.operator} with {len(requirement.values)} values is not supported.",
                "Use matchLabels, or operator In with one value.",
            )  # fmt: skip
    labels = selector.match_labels
    if labels and all(key.startswith(RESERVED_LABELS) for key in labels):
        yield FieldError(
            "resource.labelSelector.matchLabels", "InvalidSelector",
            f"All labels are reserved ones ({', '.join(labels)}).", "Add a label of your own, such as app: tune-phi-3.",
        )  # fmt: skip


def _resource_of_tuning(workspace: Workspace) -> Errors:
    resource = workspace.resource
    if resource is None:
        return
    if resource.count != 1:
        yield FieldError(
            "resource.count",
            "InvalidValue",
            f"Tuning runs on one node; count is {resource.count}.",
            "Set count to 1.",
        )
    if resource.partition is not None:
        yield FieldError(
            "resource.partition",
            "NotSupported",
            "GPU partitions are not supported for tuning.",
            "Remove partition.",
        )


def _machine(workspace: Workspace) -> Errors:
    named = workspace.resource.instance_type if workspace.resource else None
    if not named:
        return
    if placeholders(named) and find_sku(named, skus()) is None:
        yield placeholder("resource.instanceType", named, "the SKU of your GPU machine")
    elif not is_machine(named):
        yield FieldError(
            "resource.instanceType", "InvalidName", f"{named!r} is no name of a machine.",
            "Use letters, digits, dots, dashes and underscores, such as Standard_NC24ads_A100_v4.",
        )  # fmt: skip


def _tuning(tuning: Tuning, around: Surroundings, *, weights_at_hand: bool) -> Errors:
    yield from _method(tuning)
    if tuning.preset is None:
        yield missing("tuning.preset", "Name the model to tune: preset: {name: phi-3-mini-128k-instruct}.")
    else:
        yield from _preset(tuning.preset, around, weights_at_hand=weights_at_hand)
    if tuning.input is None:
        yield missing("tuning.input", "Say where the dataset is: input: {urls: [https://...]}.")
    else:
        yield from check_source(tuning.input, "tuning.input", around.private_hosts_allowed)
    if tuning.output is None:
        yield missing("tuning.output", "Say where the adapter goes: output: {image: ..., imagePushSecret: ...}.")
    else:
        yield from check_output(tuning.output)
    if tuning.config:
        yield from check_object_name("tuning.config", tuning.config, "a ConfigMap")
    yield from _schedule(tuning)
    yield from _evaluation(tuning)
    yield from check_deploy(tuning.deploy)


def _method(tuning: Tuning) -> Errors:
    if tuning.method is None or not tuning.method:
        yield missing("tuning.method", "Choose method: qlora (4-bit base) or method: lora.")
    elif tuning.method.lower() not in METHODS:
        yield FieldError(
            "tuning.method", "InvalidValue", f"{tuning.method!r} is not a tuning method.",
            did_you_mean(tuning.method, METHODS, "Use lora or qlora."),
        )  # fmt: skip


def _preset(preset: Preset, around: Surroundings, *, weights_at_hand: bool) -> Errors:
    name = preset.name.lower()
    yield from check_preset_name("tuning.preset.name", preset.name)
    if name in around.servable_only:
        yield FieldError(
            "tuning.preset.name", "PresetNotTunable", f"{preset.name!r} can be served but not tuned.",
            "Choose a preset of `kaiflow presets`, or name the model by its Hugging Face id, organisation/model.",
        )  # fmt: skip
    elif "/" not in name and name not in around.tunable:  # any model of the hub may be tried
        yield FieldError(
            "tuning.preset.name", "UnknownPreset", f"There is no preset {preset.name!r}.",
            did_you_mean(name, around.tunable, "`kaiflow presets` lists them; organisation/model works too."),
        )  # fmt: skip
    yield from check_access(preset, "tuning.preset", around.tunable, at_hand=weights_at_hand)


def check_source(source: DataSource, field: str, private_hosts_allowed: bool) -> Errors:
    """Yield what is wrong with a dataset source: exactly one kind, each value well formed."""
    kinds = {
        "urls": bool(source.urls),
        "volumeSource": source.volume_source is not None,
        "image": bool(source.image),
    }
    given = [kind for kind, present in kinds.items() if present]
    if len(given) != 1:
        yield FieldError(
            field, "ExactlyOne",
            f"Exactly one of urls, volumeSource and image is needed; here: {', '.join(given) or 'none'}.",
            "Keep one.",
        )  # fmt: skip
    for index, url in enumerate(source.urls):
        yield from check_url(f"{field}.urls[{index}]", url, private_hosts_allowed)
    if source.image:
        yield from check_image(f"{field}.image", source.image)
    for index, secret in enumerate(source.image_pull_secrets):
        yield from check_object_name(f"{field}.imagePullSecrets[{index}]", secret, "a Secret")


def _schedule(tuning: Tuning) -> Errors:
    schedule = tuning.schedule
    if schedule is None:
        return
    problem = cron_problem(schedule.cron)
    if problem:
        yield FieldError(
            "tuning.schedule.cron",
            "InvalidCron",
            f"{schedule.cron!r}: {problem}.",
            'Write for example "0 3 * * 0".',
        )
    try:
        ZoneInfo(schedule.timezone)
    except (KeyError, ValueError, OSError):
        yield FieldError(
            "tuning.schedule.timezone", "InvalidTimezone", f"{schedule.timezone!r} is not a time zone.",
            "Use a name of the tz database, such as Europe/Prague or Etc/UTC.",
        )  # fmt: skip


def _evaluation(tuning: Tuning) -> Errors:
    if tuning.evaluation.gate == "enforce" and tuning.evaluation.split == 0:
        yield FieldError(
            "tuning.evaluation.split",
            "Conflict",
            "gate: enforce needs held-out rows, and split is 0.",
            "Set split to 0.05.",
        )

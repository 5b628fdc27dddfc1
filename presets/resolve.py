"""Workspace + catalogue + training config -> Recipe.  The only place that knows a default.

Precedence: the Workspace, then the training config, then the preset, then the defaults below. The defaults
are ones that learn (a rate of 2e-4 with warm-up and linear decay, alpha = 2 r, every linear layer): TRL's
2e-5, which KAITO inherits, barely moves a LoRA's loss.
"""

import hashlib
import json
from collections.abc import Mapping

from presets.annotations import MANAGED, PREFIX, annotation_value
from presets.catalogue import Model, chat_template_text
from presets.choice import Choice
from presets.errors import ConfigError, FieldError, InvalidInput
from presets.recipe import (
    AuditRecipe,
    DataRecipe,
    DeployRecipe,
    EvaluationRecipe,
    ModelRecipe,
    NodeRecipe,
    Origin,
    OutputRecipe,
    PackagedWeights,
    Recipe,
    ScheduleRecipe,
)
from presets.resolve_training import budget, lora, quantization, training, unknown_targets
from presets.training_config import TrainingConfig
from presets.workspace import QUEUE_LABEL, Tuning, Workspace

DEFAULT_SPLIT = 0.05
AUDIT_ANNOTATIONS = ("max-dataset-bytes", "max-bad-rows", "max-cut-rows", "near-duplicates")
NODE_ANNOTATIONS = ("fallback-instance-types", "zones", "spot")
DEFAULT_MAX_DATASET_BYTES = 100 << 30
SAMPLE_PROMPTS = 6


def resolve(workspace: Workspace, model: Model, config: TrainingConfig) -> Recipe:
    """Return the Recipe of a tuning Workspace that has passed :func:`presets.rules.check`.

    Raises:
        ConfigError: the Workspace does not tune.
        InvalidInput: values that fit alone do not fit together.
    """
    tuning = workspace.tuning
    if tuning is None or tuning.method is None:
        raise ConfigError("NotTuning", "This Workspace has no tuning block.", fix="Name a Workspace that tunes.")
    choice = Choice(config)
    data = _data(tuning, choice)
    recipe = Recipe(
        name=workspace.metadata.name,
        namespace=workspace.metadata.namespace,
        uid=workspace.metadata.uid,
        revision=revision_hash(workspace, config)[:10],
        method="qlora" if choice.pick("method", "qlora", workspace=tuning.method).lower() == "qlora" else "lora",
        model=_model(workspace, tuning, model, choice),
        data=data,
        audit=_audit(workspace, choice),
        quantization=quantization(tuning.method.lower(), choice),
        lora=lora(model, choice),
        training=training(model, choice),
        evaluation=_evaluation(tuning, data, choice),
        budget=budget(workspace, choice),
        output=_output(tuning, choice),
        deploy=_deploy(tuning, choice),
        schedule=_schedule(tuning),
        node=_node(workspace),
        origins=choice.origins,
    )
    _check(recipe, model, workspace.metadata.annotations)
    return recipe


def revision_hash(workspace: Workspace, config: TrainingConfig) -> str:
    """Return the sha256 over what the Workspace asks for: resource, tuning, inference, and its training config.

    When it is done again is no part of what: a schedule that is suspended must not start a run. Nor is by whom.
    """
    blocks = workspace.model_dump(mode="json", include={"resource", "tuning", "inference"}, by_alias=True)
    if blocks.get("tuning"):
        blocks["tuning"]["schedule"] = None
    ours = {k: v for k, v in workspace.metadata.annotations.items() if k.startswith(PREFIX) and k != MANAGED}
    text = json.dumps(
        [blocks, {k: dict(v) for k, v in config.sections.items()}, *([ours] if ours else [])], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _model(workspace: Workspace, tuning: Tuning, model: Model, choice: Choice) -> ModelRecipe:
    options = tuning.preset.preset_options if tuning.preset else None
    compute = choice.pick("model.compute_dtype", "bfloat16", config=("ModelConfig", "dtype", "torch_dtype"))
    for key in ("preset", "hugging_face_id", "license", "gated", "context_tokens"):
        choice.origins[f"model.{key}"] = Origin.PRESET
    choice.origins["model.preset"] = Origin.WORKSPACE
    choice.origins["model.package"] = Origin.PRESET
    folder = annotation_value(workspace.metadata.annotations, "weights-folder")
    package = model.weights.package if folder is None else None
    template = choice.pick(
        "model.chat_template", None, config=("ModelConfig", "chat_template"), preset=chat_template_text(model)
    )
    return ModelRecipe(
        preset=model.name,
        hugging_face_id=model.hugging_face_id,
        revision=choice.pick("model.revision", "main", config=("ModelConfig", "revision"), preset=model.revision),
        license=model.license,
        gated=model.gated,
        context_tokens=model.context_tokens,
        chat_template=template,
        compute_dtype=compute,
        weights_image=choice.pick("model.weights_image", None, workspace=_weights_image(workspace, model)),
        package=PackagedWeights(**package.model_dump()) if package else None,
        access_secret=choice.pick(
            "model.access_secret", None, workspace=options.model_access_secret if options else None
        ),
        pull_secrets=choice.pick("model.pull_secrets", (), workspace=(options and options.image_pull_secrets) or None),
        folder=choice.pick("model.folder", None, workspace=folder),
    )


def _weights_image(workspace: Workspace, model: Model) -> str | None:
    """Return the image that the Workspace names, or KAITO's of the model in the registry that it names."""
    preset = workspace.tuning.preset if workspace.tuning else None
    if preset is not None and preset.preset_options.image:
        return preset.preset_options.image
    registry = annotation_value(workspace.metadata.annotations, "weights-registry")
    return f"{registry}/kaito-{model.name}:{model.weights.kaito_tag}" if registry and model.weights.kaito_tag else None


def _data(tuning: Tuning, choice: Choice) -> DataRecipe:
    source = tuning.input
    section = "DatasetConfig"
    train_share = choice.config.get(section, "train_test_split")
    split = choice.pick("data.held_out_fraction", DEFAULT_SPLIT, workspace=tuning.evaluation.split)
    if tuning.evaluation.split is None and train_share is not None:
        split, choice.origins["data.held_out_fraction"] = round(1 - train_share, 6), Origin.TRAINING_CONFIG
    for key in ("urls", "image", "pull_secrets", "volume_source"):
        choice.origins[f"data.{key}"] = Origin.WORKSPACE
    return DataRecipe(
        urls=source.urls if source else (),
        image=source.image if source else None,
        pull_secrets=source.image_pull_secrets if source else (),
        volume_source=source.volume_source if source else None,
        path=choice.pick("data.path", None, config=(section, "dataset_path")),
        context_column=choice.pick("data.context_column", None, config=(section, "context_column")),
        response_column=choice.pick("data.response_column", None, config=(section, "response_column")),
        messages_column=choice.pick("data.messages_column", None, config=(section, "messages_column")),
        shuffle=choice.pick("data.shuffle", True, config=(section, "shuffle_dataset")),
        seed=choice.pick("data.seed", 42, config=(section, "shuffle_seed")),
        held_out_fraction=split,
    )


def _audit(workspace: Workspace, choice: Choice) -> AuditRecipe:
    written = {key: annotation_value(workspace.metadata.annotations, key) for key in AUDIT_ANNOTATIONS}
    pick = choice.pick
    return AuditRecipe(
        max_bytes=pick("audit.max_bytes", DEFAULT_MAX_DATASET_BYTES, workspace=written["max-dataset-bytes"]),
        max_bad_rows=pick("audit.max_bad_rows", 0.0, workspace=written["max-bad-rows"]),
        max_cut_rows=pick("audit.max_cut_rows", 0.5, workspace=written["max-cut-rows"]),
        near_duplicates=pick("audit.near_duplicates", "remove", workspace=written["near-duplicates"]),
    )


def _evaluation(tuning: Tuning, data: DataRecipe, choice: Choice) -> EvaluationRecipe:
    default = "enforce" if tuning.schedule is not None and data.held_out_fraction > 0 else "warn"
    return EvaluationRecipe(
        gate=choice.pick("evaluation.gate", default, workspace=tuning.evaluation.gate),
        sample_prompts=SAMPLE_PROMPTS,
    )


def _output(tuning: Tuning, choice: Choice) -> OutputRecipe:
    for key in ("image", "push_secret", "volume_source"):
        choice.origins[f"output.{key}"] = Origin.WORKSPACE
    output = tuning.output
    return OutputRecipe(
        image=output.image if output else None,
        push_secret=output.image_push_secret if output else None,
        volume_source=output.volume_source if output else None,
    )


def _deploy(tuning: Tuning, choice: Choice) -> DeployRecipe:
    written = "deploy" in tuning.model_fields_set
    for key in ("enabled", "replicas", "runtime"):
        stated = written and key in tuning.deploy.model_fields_set
        choice.origins[f"deploy.{key}"] = Origin.WORKSPACE if stated else Origin.DEFAULT
    return DeployRecipe(tuning.deploy.enabled, tuning.deploy.replicas, tuning.deploy.runtime)


def _schedule(tuning: Tuning) -> ScheduleRecipe | None:
    plan = tuning.schedule
    if plan is None:
        return None
    return ScheduleRecipe(plan.cron, plan.timezone, plan.only_if_changed, plan.suspend)


def _node(workspace: Workspace) -> NodeRecipe:
    resource = workspace.resource
    labels = dict(resource.label_selector.match_labels) if resource else {}
    for requirement in resource.label_selector.match_expressions if resource else ():
        labels[requirement.key] = requirement.values[0]
    said = {key: annotation_value(workspace.metadata.annotations, key) for key in NODE_ANNOTATIONS}
    return NodeRecipe(
        workspace.instance_type,
        labels,
        resource.preferred_nodes if resource else (),
        fallback_instance_types=said["fallback-instance-types"] or (),
        zones=said["zones"] or (),
        spot=said["spot"],
        queue=workspace.metadata.labels.get(QUEUE_LABEL, ""),
    )


def _check(recipe: Recipe, model: Model, annotations: Mapping[str, str]) -> None:
    errors = list(unknown_targets(recipe.lora, model))
    if recipe.training.max_length_tokens > recipe.model.context_tokens:
        errors.append(
            FieldError(
                "training_config.TrainingArguments.max_length", "InvalidValue",
                f"{recipe.training.max_length_tokens} tokens are more than the context of {recipe.model.preset}, "
                f"{recipe.model.context_tokens}.", "Lower max_length.",
            )
        )  # fmt: skip
    if recipe.evaluation.gate == "enforce" and recipe.data.held_out_fraction <= 0:
        errors.append(
            FieldError(
                "tuning.evaluation.gate", "Conflict", "gate: enforce needs held-out rows; train_test_split keeps none.",
                "Set tuning.evaluation.split to 0.05.",
            )
        )  # fmt: skip
    if annotation_value(annotations, "weights-registry") and not recipe.model.weights_image:
        errors.append(
            FieldError(
                "metadata.annotations[kaiflow.dev/weights-registry]", "Conflict",
                f"KAITO publishes no image of {recipe.model.preset}.",
                "Remove the annotation, or name presetOptions.image.",
            )
        )  # fmt: skip
    if recipe.model.folder and recipe.model.weights_image:
        errors.append(
            FieldError(
                "metadata.annotations[kaiflow.dev/weights-folder]", "Conflict",
                "The weights are to come from a folder and from an image.", "Remove one of the two.",
            )
        )  # fmt: skip
    if recipe.model.weights_image and recipe.model.package:
        errors.append(
            FieldError(
                "tuning.preset.presetOptions.image", "Conflict",
                f"The weights of {recipe.model.preset} come from the package {recipe.model.package.name}.",
                "Remove image.",
            )
        )  # fmt: skip
    if errors:
        raise InvalidInput(recipe.name, errors)

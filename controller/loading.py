"""From files on the command line to a Recipe, with every error of the file at once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from presets.catalogue import catalogue, find_model, served_only
from presets.errors import ConfigError, FieldError, InvalidInput
from presets.manifest import ConfigMap, Manifest, Manifests, documents_of, read_manifests, read_text
from presets.recipe import Recipe
from presets.resolve import resolve
from presets.rules import Surroundings, check
from presets.training_config import CONFIG_MAP_KEY, TrainingConfig, parse_training_config
from presets.workspace import Workspace
from presets.yaml_text import load_yaml

# KAITO's own defaults: a Workspace may name them without bringing them along.
TEMPLATE_CONFIGS = ("lora-params-template", "qlora-params-template")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A Workspace that may run, and what it resolves to."""

    workspace: Workspace
    recipe: Recipe


def surroundings(*, private_hosts_allowed: bool = False) -> Surroundings:
    """Return what the rules need to know: the catalogue, and where datasets may lie."""
    tunable = {name: model.gated for name, model in catalogue().items()}
    return Surroundings(tunable, served_only(), private_hosts_allowed=private_hosts_allowed)


def load_one(
    file: Path,
    config: Path | None,
    *,
    annotations: Mapping[str, str] | None = None,
    private_hosts_allowed: bool = False,
) -> Loaded:
    """Return the one Workspace of ``file``, resolved; ``annotations`` stand above its own.

    Raises:
        FileMissingError: a file cannot be read.
        InvalidInput: the file, its Workspace or its training config has errors: all of them.
    """
    manifests = read_manifests(file)
    if len(manifests.workspaces) != 1:
        names = ", ".join(m.name or "(no name)" for m in manifests.workspaces) or "none"
        error = FieldError(
            "", "OneWorkspace", f"{file} must hold one Workspace; it holds {names}.", "Put each into a file of its own."
        )
        raise InvalidInput(str(file), [error])
    manifest = _annotated(manifests.workspaces[0], annotations or {})
    config_maps = gather_config_maps(manifests, config)
    around = surroundings(private_hosts_allowed=private_hosts_allowed)
    errors = errors_of(manifest, config_maps, around, config_required=True)
    workspace = manifest.workspace
    if errors or workspace is None:
        raise InvalidInput(str(file), errors)
    if workspace.tuning is None:
        raise ConfigError(
            "NotTuning",
            f"{workspace.metadata.name} serves and does not tune.",
            fix="Name a Workspace with a tuning block.",
        )
    return Loaded(workspace, resolved(workspace, config_maps))


def _annotated(manifest: Manifest, annotations: Mapping[str, str]) -> Manifest:
    workspace = manifest.workspace
    if workspace is None or not annotations:
        return manifest
    metadata = workspace.metadata.model_copy(update={"annotations": {**workspace.metadata.annotations, **annotations}})
    return replace(manifest, workspace=workspace.model_copy(update={"metadata": metadata}))


def errors_of(
    manifest: Manifest, config_maps: dict[str, ConfigMap], around: Surroundings, *, config_required: bool
) -> tuple[FieldError, ...]:
    """Return everything that is wrong with one Workspace document, its training config included."""
    workspace = manifest.workspace or manifest.rest
    if workspace is None:
        return manifest.errors
    errors = [*manifest.errors, *(e for e in check(workspace, around) if not _said(e.field, manifest.errors))]
    if workspace.tuning is not None:
        missing = _config_missing(workspace, config_maps) if config_required else None
        if missing is not None:
            errors.append(missing)
        else:
            try:
                config = _training_config(workspace, config_maps)
                if not errors:
                    _resolve_with(workspace, config)
            except InvalidInput as invalid:
                errors += invalid.errors
    return tuple(errors)


def _said(field: str, errors: tuple[FieldError, ...]) -> bool:
    """Whether an error at this field, inside it or around it has been reported: what follows from it is not another."""

    def inside(a: str, b: str) -> bool:
        return a == b or a.startswith((f"{b}.", f"{b}["))

    return any(inside(field, error.field) or inside(error.field, field) for error in errors)


def gather_config_maps(manifests: Manifests, config: Path | None) -> dict[str, ConfigMap]:
    """Return the ConfigMaps of the file by name; the one of ``--config`` stands for any name, under ``*``."""
    found = {config_map.name: config_map for config_map in manifests.config_maps}
    if config is not None:
        found["*"] = _read_config(config)
    return found


def _read_config(path: Path) -> ConfigMap:
    """Read a ConfigMap file, or a bare training_config.yaml."""
    text = read_text(path)
    documents = load_yaml(text, str(path))
    maps = [d for d in documents if isinstance(d, dict) and d.get("kind") == "ConfigMap"]
    if maps:
        return replace(read_manifests(path).config_maps[0], name="*")
    return ConfigMap("*", {CONFIG_MAP_KEY: text})


def submitted(file: Path, config: Path | None, workspace: Workspace) -> list[dict[str, Any]]:
    """Return what goes to a cluster: the ConfigMaps of ``file``, ``config`` as the one that is named, the Workspace."""
    found = [d for d in documents_of(file) if isinstance(d, dict) and d.get("kind") in ("ConfigMap", "Workspace")]
    name = config_name(workspace)
    if config is not None and name is not None:
        found = [d for d in found if d["kind"] != "ConfigMap" or d["metadata"]["name"] != name]
        data = dict(_read_config(config).data)
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
    return sorted(found, key=lambda d: str(d["kind"]))


def config_name(workspace: Workspace) -> str | None:
    """Return the name of the ConfigMap that the Workspace asks for, KAITO's own templates aside."""
    name = workspace.tuning.config if workspace.tuning else None
    return None if name in TEMPLATE_CONFIGS else name


def _config_missing(workspace: Workspace, config_maps: dict[str, ConfigMap]) -> FieldError | None:
    name = config_name(workspace)
    if name is None or name in config_maps or "*" in config_maps:
        return None
    return FieldError(
        "tuning.config",
        "ConfigMapNotFound",
        f"The ConfigMap {name!r} is not there.",
        "Add it to the file behind ---, or name its file with --config; on a cluster, apply it.",
    )


def _training_config(workspace: Workspace, config_maps: dict[str, ConfigMap]) -> TrainingConfig:
    name = workspace.tuning.config if workspace.tuning else None
    config_map = config_maps.get("*") or config_maps.get(name or "")
    if config_map is None:
        return TrainingConfig()
    text = config_map.data.get(CONFIG_MAP_KEY)
    if text is None:
        error = FieldError(
            f"ConfigMap {config_map.name}",
            "KeyMissing",
            f"It has no key {CONFIG_MAP_KEY}.",
            f"Add data: {CONFIG_MAP_KEY}.",
        )
        raise InvalidInput(workspace.metadata.name, [error])
    method = (workspace.tuning.method or "").lower() if workspace.tuning else ""
    return parse_training_config(text, method, workspace.metadata.name)


def resolved(workspace: Workspace, config_maps: dict[str, ConfigMap]) -> Recipe:
    """Return the Recipe of a Workspace that breaks no rule."""
    return _resolve_with(workspace, _training_config(workspace, config_maps))


def _resolve_with(workspace: Workspace, config: TrainingConfig) -> Recipe:
    preset = workspace.tuning.preset if workspace.tuning else None
    model = find_model(preset.name) if preset else None
    if model is None:  # the rules have said so already
        raise InvalidInput(workspace.metadata.name, [])
    return resolve(workspace, model, config)

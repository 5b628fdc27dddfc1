"""``kaiflow validate``: what is wrong with these files, one entry a Workspace, nothing run."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from controller.loading import config_name, errors_of, gather_config_maps, surroundings
from presets.errors import FieldError, InvalidInput
from presets.manifest import ConfigMap, Manifest, Manifests, read_manifests
from presets.rules_update import check_update
from presets.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Verdict:
    """One Workspace: whether it may be applied, and why not."""

    file: str
    name: str
    valid: bool
    errors: tuple[FieldError, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of ``-o json``."""
        return {**asdict(self), "errors": [asdict(e) for e in self.errors], "warnings": list(self.warnings)}


def validate(files: Sequence[Path], old: Path | None, config: Path | None) -> list[Verdict]:
    """Return the verdict of every Workspace in ``files``, in order; a file that cannot be parsed has one too.

    Raises:
        FileMissingError: a file cannot be read.
    """
    try:
        before = _by_name(read_manifests(old)) if old else None
    except InvalidInput as invalid:
        return [_broken(old or Path(), invalid)]
    read = [(file, _read(file)) for file in files]
    shared = [c for _, found in read if isinstance(found, Manifests) for c in found.config_maps]
    everywhere = Manifests((), tuple(shared))  # a Workspace and its ConfigMap may lie in two files
    any_workspace = any(isinstance(found, Manifests) and found.workspaces for _, found in read)
    verdicts: list[Verdict] = []
    for file, found in read:
        if isinstance(found, InvalidInput):
            verdicts.append(_broken(file, found))
        elif found.workspaces:
            verdicts += _verdicts(file, found, before, gather_config_maps(everywhere, config))
        elif not any_workspace:
            error = FieldError("kind", "NoWorkspace", f"{file} holds no Workspace.", "Name a file that holds one.")
            verdicts.append(_broken(file, InvalidInput(str(file), [error])))
    return verdicts


def _read(file: Path) -> Manifests | InvalidInput:
    try:
        return read_manifests(file)
    except InvalidInput as invalid:
        return invalid


def _broken(file: Path, invalid: InvalidInput) -> Verdict:
    return Verdict(str(file), "", valid=False, errors=invalid.errors, warnings=())


def _verdicts(
    file: Path,
    manifests: Manifests,
    before: dict[tuple[str, str], Workspace] | None,
    config_maps: dict[str, ConfigMap],
) -> Iterator[Verdict]:
    for manifest in manifests.workspaces:
        errors = errors_of(manifest, config_maps, surroundings(), config_required=False)
        warnings = list(_warnings(manifest, set(config_maps)))
        workspace = manifest.workspace or manifest.rest
        if workspace is not None and before is not None:
            old = before.get((workspace.metadata.namespace, workspace.metadata.name))
            errors += check_update(old, workspace) if old else ()
            if old is None:
                warnings.append(f"--old holds no Workspace {workspace.metadata.name!r}: the update was not checked")
        yield Verdict(str(file), manifest.name, valid=not errors, errors=errors, warnings=tuple(warnings))


def _warnings(manifest: Manifest, config_maps: set[str]) -> Iterator[str]:
    workspace = manifest.workspace
    if workspace is None:
        return
    name = config_name(workspace)
    if name is not None and name not in config_maps and "*" not in config_maps:
        yield f"tuning.config: the ConfigMap {name!r} is not in the file, so its keys were not checked"
    if workspace.runs_without_cluster_data:
        yield "tuning.input.urls: file:// and pkg:// are read on your own machine alone"


def _by_name(manifests: Manifests) -> dict[tuple[str, str], Workspace]:
    """Return the Workspaces as they are; what is wrong with an old one does not keep the update from being checked."""
    found = [w for m in manifests.workspaces if (w := m.workspace or m.rest) is not None]
    return {(w.metadata.namespace, w.metadata.name): w for w in found}

"""``kaiflow audit``: the fetch step's audit alone, of files, addresses, or a Workspace's own dataset."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from controller.loading import load_one
from presets.catalogue import find_model
from presets.errors import ConfigError, InvalidInput
from presets.field_rules import check_url
from presets.manifest import read_text
from presets.recipe import Recipe
from presets.resolve import resolve
from presets.training_config import TrainingConfig, parse_training_config
from presets.workspace import Workspace
from steps.audit import Audit, Finding

WORKSPACE_SUFFIXES = (".yaml", ".yml")
NO_MODEL = "TokenizerMissing"


def audit(sources: Sequence[str], model: str | None, config: Path | None, page: Path | None) -> Audit:
    """Return what is in the data; ``page`` takes the report.

    Raises:
        KaiflowError: a source cannot be read, or the command line makes no sense.
    """
    recipe = _recipe(sources, model, config)
    folder = Path(tempfile.mkdtemp(prefix="kaiflow-audit-"))
    try:
        found = _audited(recipe, folder)
        if model is None and not _is_workspace(sources):
            found.findings = [_without_model(f) for f in found.findings]
        if page is not None:
            from steps.audit_page import page as render

            page.write_text(render(found, recipe.name))
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _audited(recipe: Recipe, folder: Path) -> Audit:
    from steps.fetch import measured
    from steps.progress import ProgressFile
    from steps.sources import collect

    collected = collect(recipe.data, recipe.audit, folder / "downloads", "local", ProgressFile(None))
    return measured(collected, recipe.data, recipe.audit, recipe.model, recipe.training, folder / "data")


def _is_workspace(sources: Sequence[str]) -> bool:
    return len(sources) == 1 and sources[0].endswith(WORKSPACE_SUFFIXES)


def _recipe(sources: Sequence[str], model: str | None, config: Path | None) -> Recipe:
    if _is_workspace(sources):
        loaded = load_one(Path(sources[0]), config, private_hosts_allowed=True).recipe
        return loaded if model is None else replace(loaded, model=_for_model(loaded.name, (), model, config).model)
    urls = tuple(_address(source) for source in sources)
    errors = [error for index, url in enumerate(urls) for error in check_url(f"SOURCE[{index}]", url, True)]
    if errors:
        raise InvalidInput("the sources", errors)
    name = Path(urlsplit(urls[0]).path).name or "dataset"
    return _for_model(name, urls, model or "smollm2-135m-instruct", config)


def _address(source: str) -> str:
    return source if "://" in source else Path(source).absolute().as_uri()


def _for_model(name: str, urls: tuple[str, ...], model: str, config: Path | None) -> Recipe:
    """Return the Recipe of a Workspace that tunes ``model`` on ``urls``: the same defaults as a run has."""
    found = find_model(model)
    if found is None:
        raise ConfigError("PresetUnknown", f"There is no preset {model!r}.", fix="List them with: kaiflow presets.")
    body = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "tuning": {"preset": {"name": model}, "method": "lora", "input": {"urls": urls}},
    }
    written = _written(read_text(config), name) if config else TrainingConfig()
    return resolve(Workspace.model_validate(body), found, written)


def _written(text: str, name: str) -> TrainingConfig:
    """Return the training config, whichever method it is meant for."""
    try:
        return parse_training_config(text, "qlora", name)
    except InvalidInput:
        return parse_training_config(text, "lora", name)


def _without_model(finding: Finding) -> Finding:
    if finding.reason != NO_MODEL:
        return finding
    return replace(finding, severity="note", fix="Name the model to measure with: --model.")


def lines(found: Audit) -> list[str]:
    """Return the audit in words, a line each."""
    told = [
        f"{file.name}: {file.rows} rows of {file.format}, read as {file.shape or 'nothing'} ({file.shape_reason})"
        for file in found.files
    ]
    told.append(f"{found.rows_read} rows read, {found.rows_bad} left out")
    if found.sorted_out:
        told[-1] += (
            f", {found.duplicates} duplicates, {found.near_duplicates} near duplicates: "
            f"{found.rows_train} to train on, {found.rows_held_out} held out"
        )
    if found.tokens is not None:
        t = found.tokens
        about = "" if t.exact else f" (a sample of {t.rows} rows)"
        told.append(
            f"tokens: median {t.p50}, 95 % below {t.p95}, longest {t.longest}, limit {t.limit}, "
            f"{t.cut_rows} rows cut; {t.supervised_share:.0%} supervised{about}"
        )
    for finding in found.findings:
        told.append(f"{finding.severity}: {finding.message} {finding.fix}".rstrip())
        told += [f"  {row}" for row in finding.rows]
    return told

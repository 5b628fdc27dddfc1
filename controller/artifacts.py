"""``kaiflow lineage``, ``verify``, ``prune``: what an adapter was made of, whether it still is, what nobody needs."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.options import Namespace, Output, StateDir
from controller.output import Format

Image = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Name of a Workspace that was run here, or registry/repository:tag.")
]


def lineage(
    image: Image, namespace: Namespace = "default", output: Output = Format.TABLE, state_dir: StateDir = None
) -> None:
    """Show what an adapter was made of: run, recipe, rows, base model, code."""
    from controller.output import write_data, write_table
    from steps.lineage import lineage as walk
    from steps.lineage import walked

    store, tag = _open(image, namespace, state_dir)
    links = list(walked(walk(store, tag)))
    if output in (Format.JSON, Format.YAML):
        write_data([_link_json(depth, link) for depth, link in links], output)
        return
    rows = [(f"{'  ' * depth}{link.what}", link.digest, _said(link)) for depth, link in links]
    write_table(("WHAT", "DIGEST", "SAYS"), rows)


def verify(
    image: Image, namespace: Namespace = "default", output: Output = Format.TABLE, state_dir: StateDir = None
) -> None:
    """Hash an adapter, and all that it was made of, again; exit 1 when anything is not what it was."""
    from controller.failure import CLI_FAILED
    from controller.output import say, write_data, write_table
    from steps.lineage import lineage as walk
    from steps.lineage import verify as check

    store, tag = _open(image, namespace, state_dir)
    checks = list(check(store, walk(store, tag)))
    if output in (Format.JSON, Format.YAML):
        write_data([{"what": c.what, "digest": c.digest, "problem": c.problem} for c in checks], output)
    else:
        write_table(("WHAT", "DIGEST", "IS"), [(c.what, c.digest, c.problem or "as it was") for c in checks])
    wrong = sum(bool(c.problem) for c in checks)
    say(f"{len(checks)} looked at, {f'{wrong} not' if wrong else 'all'} as they were.")
    if wrong:
        raise typer.Exit(CLI_FAILED)


def prune(
    repository: Annotated[
        str | None, typer.Argument(metavar="[REPOSITORY]", help="registry/repository; this machine's stores otherwise.")
    ] = None,
    needed_by: Annotated[
        list[str] | None,
        typer.Option("--needed-by", metavar="REPOSITORY", help="Where images of yours are that a cache was used for."),
    ] = None,
    older_than: Annotated[float, typer.Option("--older-than", min=0.0, help="Days.")] = 30.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="Only this namespace.")] = None,
    state_dir: StateDir = None,
) -> None:
    """Remove finished steps that no image is made of any more: this machine's, or a repository's."""
    if needed_by and repository is None:
        raise typer.BadParameter("it is about a REPOSITORY, and none is named.", param_hint="--needed-by")
    if repository is not None:
        _prune_registry(repository, needed_by or [], older_than, dry_run)
        return
    from controller.output import say, write_table
    from controller.state import all_folders, state_root
    from steps.oci_layout import LayoutStore
    from steps.pruning import prune as prune_store

    rows, freed = [], 0
    for folder in all_folders(state_root(state_dir), namespace):
        if not folder.store.is_dir():
            continue
        with folder.locked():
            for gone in prune_store(LayoutStore(folder.store), time.time(), older_than, dry=dry_run):
                rows.append((folder.namespace, folder.name, gone.tag, f"{gone.freed_bytes / (1 << 20):.1f} MiB"))
                freed += gone.freed_bytes
    if rows:
        write_table(("NAMESPACE", "NAME", "TAG", "FREES"), rows)
    say(f"{len(rows)} {'would be ' if dry_run else ''}removed, {freed / (1 << 20):.1f} MiB.")


def _prune_registry(repository: str, needed_by: Sequence[str], older_than_days: float, dry: bool) -> None:
    from controller.output import say, write_table
    from steps.docker_config import step_credentials
    from steps.registry_pruning import prune_registry
    from steps.registry_store import RegistryStore

    credentials = step_credentials()
    store, *others = (RegistryStore(name, credentials) for name in (repository, *needed_by))
    look = prune_registry(store, time.time(), older_than_days, needed_by=others, dry=dry)
    if look.removed:
        write_table(("TAG", "SIZE"), [(p.tag, f"{p.freed_bytes / (1 << 20):.1f} MiB") for p in look.removed])
    say(
        f"{len(look.removed)} {'would be ' if dry else ''}removed; {look.waiting} that nothing needs "
        f"{'are' if look.waiting != 1 else 'is'} kept until nothing has needed them for {older_than_days:g} days."
    )


def _open(image: str, namespace: str, state_dir: Path | None) -> tuple[Any, str]:
    """Return the store that holds the image, and the image's tag or digest there."""
    from controller.state import find_folder, state_root
    from presets.names import parse_image
    from steps.store import LAYOUT_PREFIX, REGISTRY_PREFIX, open_store

    reference = parse_image(image)
    if reference is not None and reference.registry:
        found = reference.digest or reference.tag or "latest"
        return open_store(f"{REGISTRY_PREFIX}{reference.repository_with_registry}"), found
    folder = find_folder(state_root(state_dir), namespace, image)
    digest = folder.read().get("status", {}).get("output", {}).get("digest", "")
    return open_store(f"{LAYOUT_PREFIX}{folder.store}"), digest


def _link_json(depth: int, link: Any) -> dict[str, Any]:  # noqa: ANN401  (steps.lineage.Link)
    notes = dict(link.manifest.annotations) if link.manifest else None
    return {"what": link.what, "depth": depth, "digest": link.digest, "annotations": notes}


TELLING = {
    "image": ("sh.kaito.model.name", "kaiflow.workspace"),
    "run": ("kaiflow.run.recipe", "kaiflow.version", "kaiflow.run.tuned-loss"),
    "dataset": ("kaiflow.dataset.rows", "kaiflow.dataset.sources"),
    "weights": ("kaiflow.model", "kaiflow.model.revision"),
    "report": (),
    "provenance": ("in-toto.io/predicate-type",),
}


def _said(link: Any) -> str:  # noqa: ANN401
    if link.manifest is None:
        return "not in this store"
    return ", ".join(
        f"{re.split('[./]', note)[-1]} {value}"
        for note in TELLING[link.what]
        if (value := link.manifest.annotations.get(note))
    )

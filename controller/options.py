"""The options that several commands share, and what they mean.  Read at every start: nothing heavy."""

from pathlib import Path
from typing import Annotated

import typer

from controller.output import Format

File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file that holds one Workspace.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a Workspace that was run here.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="ConfigMap file, or training_config.yaml, that tuning.config stands for."),
]
Output = Annotated[Format, typer.Option("-o", "--output", help="table, wide, json or yaml.")]
Namespace = Annotated[str, typer.Option("-n", "--namespace", help="Namespace of the Workspace.")]
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Folder that holds .kaiflow; $KAIFLOW_STATE, or the current folder, otherwise."),
]

Cache = Annotated[
    str | None,
    typer.Option("--cache", help="registry/repository for rows, weights, checkpoints; beside the output otherwise."),
]
ImageVolumes = Annotated[
    bool, typer.Option("--image-volumes", help="The cluster mounts images: take weights from presetOptions.image so.")
]

MaxHours = Annotated[
    float | None, typer.Option("--max-hours", min=0.0, help="End the training in time, and pack the best it has.")
]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", min=0.0, help="The same in US dollars, at the named machine's price.")
]


def budget_annotations(max_hours: float | None, max_cost: float | None) -> dict[str, str]:
    """Return the options as the annotations that say the same."""
    said = {"kaiflow.dev/max-hours": max_hours, "kaiflow.dev/max-cost": max_cost}
    return {key: f"{value:f}" for key, value in said.items() if value is not None}


def checked_cache(cache: str | None) -> str | None:
    """Return the repository when it is one.

    Raises:
        ConfigError: it is not.
    """
    from presets.errors import ConfigError
    from presets.names import parse_image

    reference = parse_image(cache) if cache else None
    if cache and (reference is None or not reference.registry or reference.tag or reference.digest):
        raise ConfigError(
            "CacheInvalid", f"{cache!r} is no repository.", fix="Write registry/repository, without a tag."
        )
    return cache

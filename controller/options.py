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

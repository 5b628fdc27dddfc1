"""The command line: ``kaiflow``.  Every command imports what it needs when it runs; ``--help`` imports nothing.

Data goes to standard output, words to standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 refused,
4 not found or not permitted, 5 timed out, 130 interrupted.
"""

import io
import sys
from typing import Annotated

import typer

from controller import artifacts, nodes, offline, operating, workspaces
from controller.failure import CLI_FAILED, CLI_INTERRUPTED
from controller.options import Config, File, MaxCost, MaxHours, StateDir, Weights, as_annotations

app = typer.Typer(
    name="kaiflow",
    help="KAITO fine-tuning Workspaces as Argo Workflows, on a cluster or on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_verbose = False


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"kaiflow {version('kaiflow')}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001  (handled by its callback)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    global _verbose
    _verbose = verbose


@app.command()
def run(
    file: File,
    config: Config = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the server; 0 takes a free one.")] = 0,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    weights: Weights = None,
    push: Annotated[bool, typer.Option("--push", help="Push the adapter image to output.image.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Run a Workspace on this machine: fetch, tune, push, deploy; no cluster, no GPU needed."""
    from rich.console import Console

    from controller.loading import load_one
    from controller.local_run import RunOptions
    from controller.local_run import run as run_here
    from controller.report import report
    from controller.state import StateFolder, state_root
    from controller.view import view_for

    loaded = load_one(
        file, config, annotations=as_annotations(max_hours, max_cost, weights), private_hosts_allowed=True
    )
    folder = StateFolder(state_root(state_dir), loaded.recipe.namespace, loaded.recipe.name)
    with view_for(Console(stderr=True)) as view:
        result = run_here(loaded, folder, RunOptions(port=port, push=push), view)
    report(result, folder)
    raise typer.Exit(result.exit_code)


for _command in (
    offline.plan, offline.validate, offline.audit, offline.render, offline.crds, offline.presets,
    workspaces.submit, workspaces.get, workspaces.status, workspaces.why, workspaces.logs, workspaces.chat,
    workspaces.stop, workspaces.delete, artifacts.lineage, artifacts.verify, artifacts.prune, nodes.nodes,
    operating.controller,
):  # fmt: skip
    app.command()(_command)


def main() -> None:
    """Run the command line; errors become sentences and exit codes, tracebacks only with -v."""
    from presets.errors import KaiflowError, UnavailableError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is followed comes through a pipe as it is told
    try:
        app()
    except KaiflowError as error:
        if _verbose:
            raise
        from controller.report import print_error

        print_error(error)
        from controller.exit_codes import exit_code

        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(CLI_INTERRUPTED)
    except OSError as error:
        if _verbose:
            raise
        from controller.report import print_error
        from presets.os_errors import explain_os_error

        where = f": {error.filename}" if error.filename else ""
        told = UnavailableError("OSError", f"{error.strerror or error}{where}.", fix="")
        print_error(explain_os_error(error) or told)
        sys.exit(CLI_FAILED)


if __name__ == "__main__":
    main()

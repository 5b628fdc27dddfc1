"""The command line: ``kaiflow``.  Every command imports what it needs when it runs; ``--help`` imports nothing.

Data goes to standard output, words to standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 refused,
4 not found or not permitted, 5 timed out, 130 interrupted.
"""

import sys
from typing import Annotated

import typer

from controller import artifacts, nodes, offline, operating
from controller.failure import CLI_FAILED, CLI_INTERRUPTED
from controller.options import Config, File, MaxCost, MaxHours, Name, Namespace, Output, StateDir, budget_annotations
from controller.output import Format

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

    loaded = load_one(file, config, annotations=budget_annotations(max_hours, max_cost), private_hosts_allowed=True)
    folder = StateFolder(state_root(state_dir), loaded.recipe.namespace, loaded.recipe.name)
    with view_for(Console(stderr=True)) as view:
        result = run_here(loaded, folder, RunOptions(port=port, push=push), view)
    report(result, folder)
    raise typer.Exit(result.exit_code)


@app.command()
def get(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    namespace: Annotated[str | None, typer.Option("-n", "--namespace", help="Only this namespace.")] = None,
    output: Output = Format.TABLE,
    state_dir: StateDir = None,
) -> None:
    """List the Workspaces that were run here, as kubectl get workspace does."""
    from controller.output import say, write_data
    from controller.state import all_folders, find_folder, state_root
    from controller.workspace_tables import write_workspaces

    root = state_root(state_dir)
    folders = [find_folder(root, namespace or "default", name)] if name else all_folders(root, namespace)
    workspaces = [folder.read() for folder in folders]
    if output in (Format.JSON, Format.YAML):
        write_data(workspaces[0] if name else {"apiVersion": "v1", "kind": "List", "items": workspaces}, output)
    elif workspaces:
        write_workspaces(workspaces, wide=output is Format.WIDE)
    else:
        say(f"No Workspace has been run in {root.parent}.")


@app.command()
def status(
    name: Name,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Print anew until the run has ended.")] = False,
    namespace: Namespace = "default",
    output: Output = Format.TABLE,
    state_dir: StateDir = None,
) -> None:
    """Show one Workspace: steps, conditions, results."""
    from controller.following import follow_status
    from controller.state import find_folder, state_root

    follow_status(find_folder(state_root(state_dir), namespace, name), output, watch=watch)


@app.command()
def logs(
    name: Name,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="Only this step.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")] = False,
    namespace: Namespace = "default",
    state_dir: StateDir = None,
) -> None:
    """Print the log lines of the newest run, all steps or one."""
    from controller.following import follow_logs
    from controller.state import find_folder, state_root

    follow_logs(find_folder(state_root(state_dir), namespace, name), step, follow=follow)


@app.command()
def chat(
    name: Name,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT")],
    model: Annotated[str | None, typer.Option("--model", help="The base's preset name, to ask the base.")] = None,
    namespace: Namespace = "default",
    state_dir: StateDir = None,
) -> None:
    """Ask the tuned model one question."""
    from controller.chat import ask
    from controller.state import find_folder, state_root
    from presets.errors import UnavailableError

    endpoint = find_folder(state_root(state_dir), namespace, name).read().get("status", {}).get("endpoint")
    if not endpoint:
        raise UnavailableError("NotServing", f"{name} is not served now.", fix="Run its file (again).")
    for piece in ask(endpoint, prompt, model):
        typer.echo(piece, nl=False)
    typer.echo()


@app.command()
def stop(name: Name, namespace: Namespace = "default", state_dir: StateDir = None) -> None:
    """Stop the run of a Workspace, and its server; finished steps are kept."""
    from controller.output import say
    from controller.state import find_folder, state_root
    from controller.stopping import stop as stop_here

    stopped = stop_here(find_folder(state_root(state_dir), namespace, name))
    say(f"Stopped {' and '.join(stopped)} of {name}." if stopped else f"Nothing of {name} was running.")


@app.command()
def delete(name: Name, namespace: Namespace = "default", state_dir: StateDir = None) -> None:
    """Stop a Workspace and remove its folder, the store included."""
    from controller.output import say
    from controller.state import find_folder, state_root
    from controller.stopping import stop as stop_here

    folder = find_folder(state_root(state_dir), namespace, name)
    stop_here(folder)
    folder.delete()
    say(f"Deleted {name}.")


for _command in (
    offline.plan, offline.validate, offline.audit, offline.render, offline.crds, offline.presets,
    artifacts.lineage, artifacts.verify, artifacts.prune, nodes.nodes, operating.controller,
):  # fmt: skip
    app.command()(_command)


def main() -> None:
    """Run the command line; errors become sentences and exit codes, tracebacks only with -v."""
    from presets.errors import KaiflowError, UnavailableError

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
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if _verbose:
            raise
        from controller.report import print_error
        from presets.os_errors import explain_os_error

        print_error(explain_os_error(error) or UnavailableError("OSError", f"{error.strerror or error}.", fix=""))
        sys.exit(CLI_FAILED)


if __name__ == "__main__":
    main()

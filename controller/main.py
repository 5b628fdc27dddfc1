"""The command line: ``kaiflow``.  Every command imports what it needs when it runs; ``--help`` imports nothing.

Data goes to standard output, words to standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 refused,
4 not found or not permitted, 5 timed out, 130 interrupted.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from controller import artifacts
from controller.failure import CLI_FAILED, CLI_INTERRUPTED, CLI_REFUSED
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
def plan(
    file: File,
    config: Config = None,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    output: Output = Format.TABLE,
) -> None:
    """Print what would run, and every value with its origin; nothing runs."""
    from controller.loading import load_one
    from controller.planning import write_plan

    loaded = load_one(file, config, annotations=budget_annotations(max_hours, max_cost), private_hosts_allowed=True)
    write_plan(loaded.recipe, output)


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files that hold Workspaces.")],
    old: Annotated[Path | None, typer.Option("--old", help="The Workspaces as they are now: check the update.")] = None,
    config: Config = None,
    output: Output = Format.TABLE,
) -> None:
    """Check Workspaces against every rule, and say what is wrong with each; nothing runs."""
    from controller.output import write, write_data
    from controller.validation import validate as check

    verdicts = check(files, old, config)
    if output in (Format.JSON, Format.YAML):
        write_data([verdict.to_json() for verdict in verdicts], output)
    else:
        for verdict in verdicts:
            write(f"{verdict.file}: {verdict.name or '(no name)'}: {'valid' if verdict.valid else 'refused'}")
            for line in (*map(str, verdict.errors), *(f"warning: {w}" for w in verdict.warnings)):
                write(f"  {line}")
    if not all(verdict.valid for verdict in verdicts):
        raise typer.Exit(CLI_REFUSED)


@app.command()
def audit(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Dataset files or addresses, or one Workspace's file.")
    ],
    model: Annotated[str | None, typer.Option("--model", help="Preset whose tokenizer measures the rows.")] = None,
    config: Config = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write the report to this file.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Read a dataset as a run would, and say what is wrong with it; nothing is trained."""
    from controller.auditing import audit as audit_here
    from controller.auditing import lines
    from controller.output import write, write_data

    found = audit_here(sources, model, config, page)
    if output in (Format.JSON, Format.YAML):
        write_data(found.to_json(), output)
    else:
        for line in lines(found):
            write(line)
    if found.errors:
        raise typer.Exit(CLI_REFUSED)


@app.command()
def render(file: File, config: Config = None, output: Output = Format.YAML) -> None:
    """Print the Argo Workflow (and the CronWorkflow of a schedule) that a cluster would get."""
    from controller.loading import load_one
    from controller.planning import rendered

    typer.echo(rendered(load_one(file, config).recipe, output))


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


for _command in (artifacts.lineage, artifacts.verify, artifacts.prune):
    app.command()(_command)


@app.command()
def presets(output: Output = Format.TABLE) -> None:
    """List the models that can be tuned by name; any Hugging Face id, organisation/model, works too."""
    from controller.preset_table import write_presets

    write_presets(output)


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

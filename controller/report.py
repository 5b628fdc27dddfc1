"""The last words of a command: what came out, or what went wrong and what to do."""

import json
from collections.abc import Mapping
from typing import Any

from controller.local_run import RunResult
from controller.output import colours, say
from controller.state import StateFolder, state_root
from controller.why import shortened
from presets.errors import InvalidInput, KaiflowError
from steps.contract import REPORT_FILE


def report(result: RunResult, folder: StateFolder) -> None:
    """Say how a run ended."""
    name = folder.name
    if result.unwritten:
        say(result.unwritten)
    if result.interrupted_by is not None:
        say("", f"Stopped by {result.interrupted_by.name}. Run the file again: finished steps are reused.")
    elif result.failure is not None:
        failure = result.failure
        say("", f"{_red('Failed')} in {failure.step}: {failure.message}", f"  {failure.fix}" if failure.fix else "")
        say(f"  reason: {failure.reason}   log: kaiflow logs {name} {failure.step}{_place(folder)}")
    else:
        say("", *_success(result.workspace["status"], folder))


def _success(status: Mapping[str, Any], folder: StateFolder) -> list[str]:
    training, output, endpoint = status.get("training", {}), status.get("output", {}), status.get("endpoint")
    lines = []
    if training.get("baseEvalLoss") is not None and training.get("evalLoss") is not None:
        base, tuned = training["baseEvalLoss"], training["evalLoss"]
        lines.append(f"held-out loss  {base:.3f} (base) -> {tuned:.3f} (tuned), {tuned / base:.2f} x")
    lines += [f"training     {line}" for line in shortened(status)]
    lines.append(f"adapter image  {output.get('digest', '')} in {folder.store}")
    page = folder.work / "tune" / REPORT_FILE
    if page.exists():
        lines.append(f"report         {page}")
    if endpoint:
        body = json.dumps({"prompt": "what is the capital of france"})
        curl = f"curl -s -X POST {endpoint}/chat -H 'Content-Type: application/json' -d '{body}'"
        lines += [
            f"endpoint       {endpoint}",
            "",
            f"  {curl}",
            f'  kaiflow chat {folder.name} "what is the capital of france"{_place(folder)}',
        ]
    return lines


def _place(folder: StateFolder) -> str:
    """Return the options by which a command finds the Workspace, where it would look elsewhere."""
    namespace = "" if folder.namespace == "default" else f" -n {folder.namespace}"
    return namespace if folder.root == state_root(None) else f"{namespace} --state-dir {folder.root.parent}"


def print_error(error: KaiflowError) -> None:
    """Say what is wrong: one sentence and the remedy, or a list where there are several."""
    if isinstance(error, InvalidInput):
        count = len(error.errors)
        say(f"{_red('Error:')} {error.subject} is refused, {count} error{'s' if count != 1 else ''}:")
        say(*(f"  {item}" for item in error.errors))
        return
    say(f"{_red('Error:')} {error}")


def _red(text: str) -> str:
    return f"\x1b[31m{text}\x1b[0m" if colours() else text

"""What a failed node says: the stable reason, the sentence and the remedy inside Argo's message.

A step's termination message reads ``Reason: what happened. Fix: what to do.``; Argo (and the local engine)
put ``main: Error (exit code N): `` before it.
"""

import re
from dataclasses import dataclass

from controller.diagnosis import diagnose

_SAID = re.compile(
    r"(?:main: Error \(exit code (?P<code>\d+)\))?(?:: )?"
    r"(?:(?P<reason>[A-Z][A-Za-z0-9]+): (?P<message>.*?)(?: Fix: (?P<fix>.*))?)?",
    re.DOTALL,
)
SIGNALS = {137: "SIGKILL, as when memory runs out", 143: "SIGTERM", 139: "SIGSEGV", 134: "SIGABRT", 130: "SIGINT"}

# Exit codes of the command line (docs/cli.md).
CLI_FAILED, CLI_REFUSED, CLI_NOT_FOUND, CLI_TIMED_OUT, CLI_INTERRUPTED = 1, 3, 4, 5, 130
_BAD_DATA, _NOT_PERMITTED, _BAD_CONFIG = 65, 77, 78


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step failed."""

    step: str
    reason: str
    message: str
    fix: str
    exit_code: int  # of the step; 0 when it never ran

    @property
    def cli_exit_code(self) -> int:
        """The exit code of ``kaiflow run`` for this failure."""
        if self.reason.endswith("NotFound") or self.exit_code == _NOT_PERMITTED:
            return CLI_NOT_FOUND
        if self.reason == "DeadlineExceeded":
            return CLI_TIMED_OUT
        return CLI_REFUSED if self.exit_code in (_BAD_DATA, _BAD_CONFIG) else CLI_FAILED


def explain(step: str, node_message: str) -> Failure:
    """Return what the message of a failed node says."""
    match = _SAID.fullmatch(node_message.strip())
    if match is not None and match["reason"] and (match["fix"] or diagnose(step, match["reason"]) is None):
        code = int(match["code"] or 0)
        return Failure(step, match["reason"], match["message"].strip(), (match["fix"] or "").strip(), code)
    code = int(match["code"]) if match is not None and match["code"] else _code_in(node_message)
    known = diagnose(step, node_message)
    if known is not None:
        return Failure(step, known.reason, known.message, known.fix, code)
    if code in SIGNALS:
        return Failure(step, "Killed", f"{step} was ended by {SIGNALS[code]}.", "Run the file again.", code)
    what = node_message.strip() or f"{step} ended with exit code {code}"
    return Failure(step, "StepFailed", f"{what}.".replace("..", "."), f"Read its log: kaiflow logs NAME {step}.", code)


def _code_in(message: str) -> int:
    found = re.search(r"exit code (\d+)", message)
    return int(found[1]) if found else 0

"""Does the adapter that was written score as the one that was trained?  Loaded again in a fresh process, to be sure.

What is served is the file, not the model in memory: a key that does not match, a scale that is not saved, a base that
is quantised another way show only here.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from presets.errors import DataError, UnavailableError
from presets.levers import Levers
from presets.recipe import QuantizationRecipe
from steps import logs
from steps.adapter import load_adapter
from steps.base_model import load_base
from steps.chat import Encoded
from steps.evaluation import Score, score

ROWS = 16
TOLERANCE = 1e-3  # of the loss


@dataclass(frozen=True, slots=True)
class Reload:
    """What a fresh process is told, and the loss that it must find."""

    told: dict[str, Any]
    loss: float

    @classmethod
    def of(
        cls,
        model: Any,  # noqa: ANN401
        weights: Path,
        adapter: Path,
        quantization: QuantizationRecipe,
        way: Levers,
        rows: Sequence[Encoded],
        tokenizer: Any,  # noqa: ANN401
    ) -> "Reload":
        """Score the first rows with the model at hand."""
        chosen = list(rows[:ROWS])
        told = to_tell(weights, adapter, quantization, way, chosen, tokenizer)
        return cls(told, score(model, chosen, tokenizer.pad_token_id, ()).loss)

    def require_same_score(self) -> None:
        """Return when a fresh process finds the same loss.

        Raises:
            DataError: it finds another one.
            UnavailableError: it could not load the adapter at all.
        """
        found = scored_afresh(self.told).loss
        logs.event("reloaded", rows=len(self.told["rows"]), loss=found, expected=self.loss)
        if not abs(found - self.loss) <= TOLERANCE * max(1.0, abs(self.loss)):
            raise DataError(
                "AdapterDiffers",
                f"The saved adapter has a loss of {found:.4f} on rows where the trained one has {self.loss:.4f}.",
                fix="Report it with the step's log: what was written is not what was trained.",
            )


def to_tell(
    weights: Path,
    adapter: Path,
    quantization: QuantizationRecipe,
    way: Levers,
    rows: Sequence[Encoded],
    tokenizer: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return what a fresh process must know to score an adapter on ``rows``."""
    return {
        "weights": str(weights), "adapter": str(adapter), "quantization": asdict(quantization),
        "dequantised": way.dequantise_once, "rows": [asdict(row) for row in rows],
        "pad": tokenizer.pad_token_id, "threads": torch.get_num_threads(),
    }  # fmt: skip


def scored_afresh(told: dict[str, Any]) -> Score:
    """Return the score of a saved adapter, found by a process of its own.

    Raises:
        UnavailableError: it could not load the adapter at all.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(told, file)
        file.flush()
        command = [sys.executable, "-m", "steps.reload", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(
            "AdapterNotLoadable",
            f"The adapter could not be loaded again: {(done.stderr.strip().splitlines() or ['no word'])[-1]}",
            fix="Report it with the step's log.",
        )
    found: Score = TypeAdapter(Score).validate_json(done.stdout.strip().splitlines()[-1])
    return found


def reloaded_score(told: dict[str, Any]) -> Score:
    """Return the score of the saved adapter on the rows."""
    torch.set_num_threads(told["threads"])
    quantization = TypeAdapter(QuantizationRecipe).validate_python(told["quantization"])
    base = load_base(Path(told["weights"]), quantization, dequantised=told["dequantised"])
    rows = [Encoded(tuple(row["ids"]), tuple(row["labels"])) for row in told["rows"]]
    return score(load_adapter(base, Path(told["adapter"])), rows, told["pad"], ())


if __name__ == "__main__":
    from steps.quiet import quiet_libraries

    quiet_libraries()
    print(json.dumps(asdict(reloaded_score(json.loads(Path(sys.argv[1]).read_text())))))  # noqa: T201

"""Is the new adapter better than the one that is published?  Both scored on the same held-out rows, paired.

The published one is loaded by a fresh process on the same base, in the way in which it would be served.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from presets.errors import UnavailableError
from presets.levers import Levers
from presets.recipe import QuantizationRecipe
from steps import logs
from steps.chat import Encoded
from steps.evaluation import Score, compare
from steps.reload import scored_afresh, to_tell


@dataclass(frozen=True, slots=True)
class Published:
    """What a fresh process is told of the published adapter, and the score of the new one."""

    told: dict[str, Any]
    tuned: Score

    @classmethod
    def of(
        cls,
        adapter: Path,
        weights: Path,
        quantization: QuantizationRecipe,
        way: Levers,
        rows: Sequence[Encoded],
        tokenizer: Any,  # noqa: ANN401
        tuned: Score,
    ) -> "Published":
        """Return what is to be compared."""
        return cls(to_tell(weights, adapter, quantization, way, rows, tokenizer), tuned)

    def against(self) -> str:
        """Return ``loss difference standard-error``: of the published one, then of the pairs.

        No quotes: Argo puts outputs into the next step's JSON as they are. Empty where the published adapter does not
        load, as one of another base: then there is nothing to compare.
        """
        try:
            found = scored_afresh(self.told)
        except UnavailableError as error:
            logs.warning("published_not_loadable", message=error.message)
            return ""
        pair = compare(found, self.tuned)
        logs.event(
            "compared_with_published",
            published_loss=found.loss,
            difference=pair.difference,
            standard_error=pair.standard_error,
        )
        return f"{found.loss:.6g} {pair.difference:.6g} {pair.standard_error:.6g}"

"""Which of several sources decides a value?  The first that has one; and it is remembered which it was."""

from collections.abc import Mapping
from typing import Any

from presets.recipe import Origin
from presets.training_config import TrainingConfig, known_keys


class Choice:
    """Picks each value from the first source that has one, and remembers which source it was."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.origins: dict[str, Origin] = {}

    def pick(
        self,
        path: str,
        default: Any,  # noqa: ANN401  (values of any type pass through)
        *,
        workspace: Any = None,  # noqa: ANN401
        config: tuple[str, ...] = (),
        preset: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Return the value of ``path``; ``config`` is a section and the key's names, newest first."""
        section, *keys = config or ("",)
        configured = next((v for k in keys if (v := self.config.get(section, k)) is not None), None)
        candidates = (
            (workspace, Origin.WORKSPACE),
            (configured, Origin.TRAINING_CONFIG),
            (preset, Origin.PRESET),
        )
        for value, origin in candidates:
            if value is not None:
                self.origins[path] = origin
                return value
        self.origins[path] = Origin.DEFAULT
        return default

    def rest(self, section: str, taken: set[str]) -> Mapping[str, Any]:
        """Return the honoured keys of a section that have no field of their own, as written."""
        honoured = set(known_keys()[section]["honoured"]) - taken
        return {k: v for k, v in self.config.sections.get(section, {}).items() if k in honoured and v is not None}

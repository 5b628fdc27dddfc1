"""Log lines of a step: JSON, one event a line, numbers as numbers, on standard output."""

import logging
import sys
from collections.abc import Mapping


def configure(fields: Mapping[str, str]) -> None:
    """Send every event to standard output as one JSON line that carries ``fields``."""
    import structlog  # a tenth of a second, which whoever logs nothing does not pay

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Asked for at every event: what stood at sys.stdout when this ran may have been replaced and closed since.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stdout),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(**fields)


def event(name: str, **values: object) -> None:
    """Log one event with its values."""
    import structlog

    structlog.get_logger().info(name, **values)


def warning(name: str, **values: object) -> None:
    """Log one event that a person should look at."""
    import structlog

    structlog.get_logger().warning(name, **values)


def silence() -> None:
    """Log nothing more: another process speaks for this one."""
    import structlog

    structlog.configure(logger_factory=lambda *_: structlog.ReturnLogger())

"""Which answers pass by themselves, and how long is it until the next try?"""

import datetime as dt
import random
import time
from email.utils import parsedate_to_datetime

ATTEMPTS = 5
PASSING = frozenset({408, 429, *range(500, 600)} - {501, 505})  # not: will never be done
BACKOFF_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0


def pause(attempt: int, retry_after: str = "", longest_seconds: float = LONGEST_WAIT_SECONDS) -> None:
    """Wait before the next try: as long as the server says, or ever longer; never more than ``longest_seconds``."""
    asked = _asked_seconds(retry_after)
    wait = asked if asked is not None else BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311
    time.sleep(min(longest_seconds, wait))


def _asked_seconds(retry_after: str) -> float | None:
    """Return how long the server asks to wait: seconds, or until a date (RFC 9110, 10.2.3); None where it does not."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=dt.UTC)
    return max(0.0, (at - dt.datetime.now(dt.UTC)).total_seconds())

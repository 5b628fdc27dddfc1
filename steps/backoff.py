"""Which answers pass by themselves, and how long is it until the next try?"""

import random
import time

ATTEMPTS = 5
PASSING = (408, 429, 500, 502, 503, 504)
BACKOFF_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0


def pause(attempt: int, retry_after: str = "", longest_seconds: float = LONGEST_WAIT_SECONDS) -> None:
    """Wait before the next try: as long as the server says, or ever longer; never more than ``longest_seconds``."""
    wait = float(retry_after) if retry_after.isdecimal() else BACKOFF_SECONDS * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311
    time.sleep(min(longest_seconds, wait))

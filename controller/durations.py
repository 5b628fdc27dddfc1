"""Times for people: ages, durations."""

import datetime as dt


def parse(timestamp: str) -> dt.datetime:
    """Return the time that Kubernetes wrote."""
    return dt.datetime.fromisoformat(timestamp.replace("Z", "+00:00"))


def age(timestamp: str | None) -> str:
    """Return how long ago, as kubectl prints it: ``5s``, ``3m``, ``2h``, ``4d``."""
    if not timestamp:
        return "-"
    seconds = max(0, int((dt.datetime.now(dt.UTC) - parse(timestamp)).total_seconds()))
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


def between(started: str | None, finished: str | None) -> str:
    """Return the time from start to finish (or to now), empty when nothing has started."""
    if not started:
        return ""
    end = parse(finished) if finished else dt.datetime.now(dt.UTC)
    return seconds_text((end - parse(started)).total_seconds())


def seconds_text(seconds: float) -> str:
    """Return ``42s``, ``3m05s`` or ``2h10m``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"

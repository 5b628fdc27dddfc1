"""Is this a name that Kubernetes, a registry or cron accepts?  Grammar only; nothing is looked up."""

import re
from dataclasses import dataclass

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|<[^<>]+>|\$\{[^}]+\}")

# github.com/distribution/reference, grammar at the top of reference.go
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)

# An artifact by its content key.
_CACHE_TAG = re.compile(r"kaiflow-(dataset|weights|run|partial|report|image|against)-.+")
_OTHER_TAG = re.compile(r"kaiflow-prune|sha256-[0-9a-f]{64}")  # what prune writes, and lists of referrers

_CRON_RANGES = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 6),  # robfig/cron knows no 7
)
_CRON_NAMES = {
    3: ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
    4: ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
}
_CRON_WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A parsed image reference; ``registry`` is empty where none was written."""

    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def repository_with_registry(self) -> str:
        """``registry/repository`` without tag and digest."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository


def is_dns_label(name: str) -> bool:
    """RFC 1123 label: lower-case letters, digits and dashes, 63 at most."""
    return _LABEL.fullmatch(name) is not None


def is_dns_subdomain(name: str) -> bool:
    """RFC 1123 subdomain: dot-separated labels, 253 characters at most."""
    return len(name) <= 253 and all(is_dns_label(part) for part in name.split("."))


def is_machine(name: str) -> bool:
    """Whether this can be the name of a machine type, of whatever cloud."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None


def placeholders(text: str) -> list[str]:
    """Return the parts of ``text`` that a person was meant to replace, such as ``ACR_REPO_HERE``."""
    return _PLACEHOLDER.findall(text)


def parse_image(reference: str) -> ImageReference | None:
    """Parse an image reference by the grammar of the distribution project; None when it does not fit.

    The first part is a registry only when it has a dot, a colon, or is ``localhost`` — as docker decides.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None or len(match["path"]) > 255:
        return None
    domain, path = match["domain"] or "", match["path"]
    if domain and not (("." in domain) or (":" in domain) or domain == "localhost" or domain != domain.lower()):
        domain, path = "", f"{domain}/{path}"
    return ImageReference(domain, path, match["tag"] or "", match["digest"] or "")


def is_cache_tag(tag: str) -> bool:
    """Whether kaiflow has made the tag for itself, for what it can make again."""
    return _CACHE_TAG.fullmatch(tag) is not None


def is_reserved_tag(tag: str) -> bool:
    """Whether kaiflow gives the tag by itself, so that it is no user's."""
    return is_cache_tag(tag) or _OTHER_TAG.fullmatch(tag) is not None


def cron_problem(expression: str) -> str | None:
    """Return what is wrong with a five-field cron expression (robfig/cron's standard parser), or None."""
    if expression in _CRON_WORDS:
        return None
    if expression.startswith("@every "):
        valid = re.fullmatch(r"@every (\d+(\.\d+)?(h|m|s))+", expression)
        return None if valid and re.search("[1-9]", expression) else "@every needs a duration such as 12h"
    fields = expression.split()
    if len(fields) != len(_CRON_RANGES):
        return f"it has {len(fields)} fields, not five (minute hour day-of-month month day-of-week)"
    for index, field in enumerate(fields):
        if not all(_cron_part_fits(part.upper(), index) for part in field.split(",")):
            name, low, high = _CRON_RANGES[index]
            return f"{field!r} is no {name} ({low}-{high})"
    return None


def _cron_part_fits(part: str, index: int) -> bool:
    span, slash, step = part.partition("/")
    if slash and not (step.isascii() and step.isdecimal() and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    low, dash, high = span.partition("-")
    ends = [_cron_number(low, index), _cron_number(high, index) if dash else None]
    if ends[0] is None or (dash and ends[1] is None):
        return False
    return not dash or ends[0] <= (ends[1] or 0)


def _cron_number(text: str, index: int) -> int | None:
    names = _CRON_NAMES.get(index, ())
    if text in names:
        return names.index(text) + (1 if index == 3 else 0)
    _, low, high = _CRON_RANGES[index]
    return int(text) if text.isascii() and text.isdecimal() and low <= int(text) <= high else None

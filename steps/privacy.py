"""Does a row hold something that should not be taught to a model: keys, tokens, e-mail addresses?

A hint, not a proof: known forms only, each told by the characters that its issuer begins it with.
"""

import re
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import compute

_MARKS = "AKIA|ASIA|gh[pos]_|github_pat_|glpat-|hf_|sk-|xox|AIza|eyJ|-----BEGIN "
_SECRET = re.compile(
    r"\b(?:A[KS]IA[0-9A-Z]{16}|gh[pos]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{40,}|glpat-[0-9A-Za-z_-]{20}"
    r"|hf_[0-9A-Za-z]{30,}|sk-(?:proj-|ant-)?[0-9A-Za-z_-]{32,}|xox[abpr]-[0-9A-Za-z-]{20,}|AIza[0-9A-Za-z_-]{35}"
    r"|eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,})"
    r"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)
_EMAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*\.[A-Za-z]{2,24}\b")
_NOBODY = re.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net)|example|test|invalid|localhost)$", re.IGNORECASE)


def has_secret(text: str) -> bool:
    """Whether the text holds what looks like a key, a token or a private key."""
    return _SECRET.search(text) is not None


def has_email(text: str) -> bool:
    """Whether the text holds an e-mail address of somebody; the reserved example domains are nobody's."""
    return any(not _NOBODY.search(found) for found in _EMAIL.findall(text))


def secrets_in(texts: pa.Array) -> Iterator[int]:
    """Yield the indices of the texts that hold what looks like a secret; most are passed over in one scan."""
    hits = _matching(texts, "match_substring_regex", _MARKS)
    return (i for i in hits if has_secret(texts[i].as_py()))


def emails_in(texts: pa.Array) -> Iterator[int]:
    """Yield the indices of the texts that hold an e-mail address."""
    hits = _matching(texts, "match_substring", "@")
    return (i for i in hits if has_email(texts[i].as_py()))


def _matching(texts: pa.Array, function: str, pattern: str) -> list[int]:
    options = compute.MatchSubstringOptions(pattern)
    hits = compute.call_function("indices_nonzero", [compute.call_function(function, [texts], options)])
    found: list[int] = hits.to_pylist()
    return found

"""In which scripts are the rows written?  A cheap hint at their languages, from the names of their letters."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

LETTERS_LOOKED_AT = 64
_JAPANESE = {"HIRAGANA", "KATAKANA"}


def script(text: str) -> str:
    """Return the script of most of the first letters: ``latin``, ``cyrillic``, ``han`` …, ``none`` without letters."""
    found: Counter[str] = Counter()
    seen = 0
    for character in text:
        if character.isalpha():
            found[_script_of(character)] += 1
            seen += 1
            if seen == LETTERS_LOOKED_AT:
                break
    if not found:
        return "none"
    if _JAPANESE & found.keys():
        return "japanese"
    return found.most_common(1)[0][0].lower()


def count_scripts(texts: Iterable[str]) -> dict[str, int]:
    """Return script -> number of texts, the most frequent first."""
    return dict(sorted(Counter(map(script, texts)).items(), key=lambda item: (-item[1], item[0])))


def _script_of(character: str) -> str:
    if character.isascii():
        return "LATIN"
    word = unicodedata.name(character, "OTHER").split()[0]
    return "HAN" if word == "CJK" else word

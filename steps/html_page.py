"""One page that opens in any browser without a server: the frame that the audit and the run's report share."""

from collections.abc import Iterable
from html import escape


def html_page(title: str, kind: str, body: Iterable[str]) -> str:
    """Return the document; ``body`` is HTML, ``title`` and ``kind`` are text."""
    return _PAGE.replace("TITLE", escape(f"{title}: {kind}")).replace("BODY", "\n".join(part for part in body if part))


def boxes(shown: Iterable[tuple[str, str]]) -> str:
    """Return figures side by side, given as (name, value)."""
    inside = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in shown)
    return f'<section class="figures">{inside}</section>'


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of texts."""
    top = "".join(f"<th>{escape(name)}" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{top}{lines}</table>"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>TITLE</title>
<style>
:root { color-scheme: light dark; --line: #8884; --good: #3a7; --bad: #c43; --warn: #b80; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } h3 { font-size: .9rem; font-weight: 500; }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; } .figures b { display: block; font-size: 1.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; overflow-wrap: anywhere; }
td, th { padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); padding: .8rem; }
mark { background: #3a73; color: inherit; } ul { padding-left: 1.2rem; }
li.error > b { color: var(--bad); } li.warning > b { color: var(--warn); } li ul { font-size: .9em; opacity: .85; }
svg { width: 100%; } .bar { fill: var(--good); } .over { fill: var(--bad); } line { stroke: var(--bad); }
.train { fill: none; stroke: var(--good); stroke-width: 1.5; opacity: .7; } .held { fill: var(--warn); }
.grid { stroke: var(--line); } .base { stroke: var(--warn); stroke-dasharray: 4 3; }
text { font-size: 11px; fill: currentColor; }
</style>
BODY
</html>
"""

"""The audit as one page that opens in any browser without a server: figures, histogram, findings, sample rows."""

from collections.abc import Iterable
from html import escape

from steps.audit import Audit, Finding, Preview, TokenReport
from steps.html_page import boxes, html_page

WIDTH, HEIGHT, MARGIN = 720, 180, 28


def page(audit: Audit, title: str) -> str:
    """Return the page; the same audit gives the same text."""
    verdict = "cannot be trained on" if audit.errors else "can be trained on"
    body = [
        f"<h1>{escape(title)}: the dataset {verdict}</h1>",
        _figures(audit),
        _findings(audit.findings),
        _lengths(audit.tokens),
        _files(audit),
        _previews(audit.previews),
    ]
    return html_page(title, "audit", body)


def _figures(audit: Audit) -> str:
    shown = [("rows read", audit.rows_read), ("left out", audit.rows_bad)]
    if audit.sorted_out:
        shown += [
            ("duplicates", audit.duplicates),
            ("near duplicates", audit.near_duplicates),
            ("to train on", audit.rows_train),
            ("held out", audit.rows_held_out),
        ]
    return boxes((name, f"{number:,}") for name, number in shown)


def _findings(findings: Iterable[Finding]) -> str:
    items = [
        f'<li class="{f.severity}"><b>{escape(f.reason)}</b> {escape(f.message)} {escape(f.fix)}{_rows(f.rows)}</li>'
        for f in sorted(findings, key=lambda f: ("error", "warning", "note").index(f.severity))
    ]
    return f"<h2>Findings</h2><ul>{''.join(items) or '<li>None.</li>'}</ul>"


def _rows(rows: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(row)}</li>" for row in rows)
    return f"<ul>{items}</ul>" if items else ""


def _lengths(tokens: TokenReport | None) -> str:
    if tokens is None:
        return ""
    which = "all rows" if tokens.exact else f"a sample of {tokens.rows:,} rows"
    return (
        f"<h2>Length in tokens</h2><p>{which}: median {tokens.p50:,}, 95 % below {tokens.p95:,}, longest "
        f"{tokens.longest:,}; limit {tokens.limit:,}, {tokens.cut_rows:,} cut. The loss is taken on "
        f"{tokens.supervised_share:.0%} of the tokens.</p>{_histogram(tokens)}"
    )


def _histogram(tokens: TokenReport) -> str:
    high, last = max(tokens.counts), max(tokens.edges[-1], 1)
    inner = WIDTH - 2 * MARGIN
    bars = []
    for low, up, count in zip(tokens.edges[:-1], tokens.edges[1:], tokens.counts, strict=True):
        tall = (HEIGHT - 2 * MARGIN) * count / high
        x, width = MARGIN + inner * low / last, max(1.0, inner * (up - low) / last - 1)
        kind = "over" if low >= tokens.limit else "bar"
        bars.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{HEIGHT - MARGIN - tall:.1f}" width="{width:.1f}" '
            f'height="{tall:.1f}">'
            f"<title>{low}-{up} tokens: {count} rows</title></rect>"
        )
    ticks = "".join(
        f'<text x="{MARGIN + inner * i / 4:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{last * i // 4}</text>'
        for i in range(5)
    )
    limit = ""
    if tokens.limit <= last:
        x = MARGIN + inner * tokens.limit / last
        limit = (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{HEIGHT - MARGIN}"/><text x="{x + 4:.1f}" y="16">limit</text>'
        )
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Rows by length">'
    return f"{head}{''.join(bars)}{limit}{ticks}</svg>"


def _files(audit: Audit) -> str:
    rows = "".join(
        f"<tr><td>{escape(f.name)}<td>{f.format}<td>{f.rows:,}<td>{escape(f.shape)}: {escape(f.shape_reason)}"
        f"<td>{escape(', '.join(f.ignored_columns)) or '-'}<td><code>{f.sha256[:12]}</code>"
        for f in audit.files
    )
    skipped = f"<p>Not read: {escape(', '.join(audit.skipped_files))}.</p>" if audit.skipped_files else ""
    scripts = ", ".join(f"{escape(name)} {count:,}" for name, count in audit.scripts.items())
    written = f"<p>Written in: {scripts} (of the rows looked at).</p>" if scripts else ""
    head = "<tr><th>File<th>Format<th>Rows<th>Read as<th>Columns not used<th>sha256"
    return f"<h2>Files</h2><table>{head}{rows}</table>{skipped}{written}"


def _previews(previews: Iterable[Preview]) -> str:
    shown = "".join(
        f"<h3>{escape(preview.place)}</h3><pre>"
        + "".join(f"<mark>{escape(text)}</mark>" if used else escape(text) for text, used in preview.pieces)
        + "</pre>"
        for preview in previews
    )
    if not shown:
        return ""
    return f"<h2>Rows as the model reads them</h2><p>The loss is taken on the <mark>marked</mark> tokens.</p>{shown}"

"""Which of what was found ends the run, which is worth a warning?  The thresholds are the Recipe's."""

from presets.recipe import AuditRecipe, DataRecipe
from steps.audit import Audit, Finding, Places
from steps.gather import Gathered
from steps.token_meter import TokenMeter

LITTLE_SUPERVISED = 0.02


def judge_rows(audit: Audit, gathered: Gathered, rules: AuditRecipe) -> None:
    """Judge rows that cannot be used, and rows that perhaps should not be."""
    if audit.rows_read == 0:
        _add(audit, "error", "DatasetEmpty", "The dataset has no rows.", "Name a file with at least two rows.")
        return
    _bad_rows(audit, gathered, rules)
    if gathered.secrets.count:
        what = f"{_rows(gathered.secrets.count, 'holds', 'hold')} what looks like a key or a token."
        _add(audit, "warning", "PossibleSecrets", what, "Remove it there: the model may repeat it.", gathered.secrets)
    if gathered.emails.count:
        what = f"{_rows(gathered.emails.count, 'holds', 'hold')} an e-mail address."
        _add(audit, "warning", "EmailAddresses", what, "Check that they may be used.", gathered.emails)
    for file in audit.files:
        if file.ignored_columns:
            many = len(file.ignored_columns) > 1
            names = ", ".join(file.ignored_columns)
            what = f"{file.name}: the column{'s' if many else ''} {names} {'are' if many else 'is'} not used."
            _add(audit, "note", "ColumnsIgnored", what, "")


def _bad_rows(audit: Audit, gathered: Gathered, rules: AuditRecipe) -> None:
    share = audit.rows_bad / audit.rows_read
    severity = "error" if share > rules.max_bad_rows or audit.rows_bad == audit.rows_read else "warning"
    left_out = "" if severity == "error" else " They are left out."
    for places, reason, what, fix in (
        (gathered.unparsable, "Unparsable", "cannot be parsed", "Mend or remove these rows"),
        (
            gathered.invalid, "RowsInvalid", "cannot be trained on",
            "Mend or remove these rows: each needs a question and ends with the assistant's answer",
        ),
    ):  # fmt: skip
        if places.count:
            message = f"{places.count} of {audit.rows_read} rows {what}.{left_out}"
            remedy = f"{fix}, or leave them out with the annotation kaiflow.dev/max-bad-rows: {_enough(share)}."
            _add(audit, severity, reason, message, remedy if severity == "error" else "", places)


def _enough(share: float) -> str:
    """Return the smallest round percentage that lets the rows pass."""
    return next((f"{percent}%" for percent in (1, 2, 5, 10, 20, 50) if share * 100 <= percent), "100%")


def judge_size(audit: Audit, data: DataRecipe) -> None:
    """Judge whether enough is left to train on and to evaluate with."""
    again = audit.duplicates + audit.near_duplicates
    if audit.rows_train == 0:
        what = (
            f"Nothing is left to train on: of {audit.rows_read} rows {again} are duplicates and "
            f"{audit.rows_held_out} are held out."
        )
        _add(audit, "error", "DatasetTooSmall", what, "Add rows, or lower tuning.evaluation.split.")
    elif data.held_out_fraction > 0 and audit.rows_held_out == 0:
        what = f"{audit.rows_train} distinct row is too few to keep one out for the evaluation."
        _add(audit, "error", "DatasetTooSmall", what, "Add rows, or set tuning.evaluation.split to 0.")
    elif again > audit.rows_read / 2:
        what = f"Of {audit.rows_read} rows only {audit.rows_train + audit.rows_held_out} are distinct."
        _add(audit, "warning", "MostlyDuplicates", what, "Check how the dataset was put together.")


def note_repeats(audit: Audit, reason: str, places: Places) -> None:
    """Tell of rows that were left out because an earlier one says the same."""
    if places.count:
        nearly = "nearly " if reason == "NearDuplicates" else ""
        what = f"{_rows(places.count, 'says', 'say')} {nearly}what an earlier one says; the first is kept."
        keep = "To keep them: the annotation kaiflow.dev/near-duplicates: keep." if nearly else ""
        _add(audit, "note", reason, what, keep, places)


def note_incomplete(audit: Audit) -> None:
    """Tell that not all pairs of similar rows were looked at."""
    what = "There are so many similar rows that not all pairs of them were compared."
    _add(audit, "warning", "NearDuplicatesIncomplete", what, "Remove near duplicates before, if they matter.")


def judge_lengths(audit: Audit, meter: TokenMeter, rules: AuditRecipe) -> None:
    """Judge rows that the template refuses, that are cut, or that have nothing to learn left."""
    if meter.refused.count:
        what = f"{meter.refusal} {_rows(meter.refused.count)} in all."
        fix = "Mend the rows, or set ModelConfig.chat_template."
        _add(audit, "error", "TemplateRefused", what, fix, meter.refused)
    tokens = audit.tokens
    if tokens is None:
        return
    _cut_rows(audit, meter, rules)
    if tokens.supervised_share < LITTLE_SUPERVISED and tokens.unanswered_rows < tokens.cut_rows:
        what = f"The loss is taken on {tokens.supervised_share:.1%} of the tokens; the rest is read and not learned."
        _add(audit, "warning", "LittleSupervised", what, "Shorten the questions, or train on the whole text.")


def _cut_rows(audit: Audit, meter: TokenMeter, rules: AuditRecipe) -> None:
    tokens = audit.tokens
    if tokens is None or not tokens.cut_rows:
        return
    about = "" if tokens.exact else "about "
    share = tokens.cut_rows / tokens.rows
    if tokens.unanswered_rows == tokens.rows:
        what = f"No answer begins within the first {tokens.limit} tokens of any row."
        _add(audit, "error", "NothingSupervised", what, f"Raise TrainingArguments.max_length from {tokens.limit}.")
        return
    what = f"{about}{share:.1%} of the rows are longer than {tokens.limit} tokens and lose their end.".capitalize()
    if tokens.unanswered_rows:
        what += (
            f" {_rows(tokens.unanswered_rows, 'loses', 'lose')} the whole answer, from which nothing is learned then."
        )
    fix = f"Raise TrainingArguments.max_length (the longest row has {tokens.longest} tokens)"
    if share > rules.max_cut_rows:
        fix += f", or accept it with the annotation kaiflow.dev/max-cut-rows: {_enough(share)}."
        _add(audit, "error", "RowsCut", what, fix, meter.cut)
    else:
        _add(audit, "warning", "RowsCut", what, f"{fix}.", meter.cut)


def _rows(count: int, does: str = "", do: str = "") -> str:
    return f"{count} row {does}".rstrip() if count == 1 else f"{count} rows {do}".rstrip()


def _add(audit: Audit, severity: str, reason: str, message: str, fix: str, places: Places | None = None) -> None:
    audit.findings.append(Finding(severity, reason, message, fix, places.rows if places else ()))  # type: ignore[arg-type]

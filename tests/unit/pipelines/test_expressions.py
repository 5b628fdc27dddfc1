"""Argo's three expression languages, as far as they are spoken here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.expressions import ExpressionError, depends_met, evaluate, tasks_in, when_holds
from pipelines.templates import RETRY_EXPRESSION


@pytest.mark.parametrize(
    ("depends", "phases", "met"),
    [
        ("", {}, True),
        ("a", {"a": "Succeeded"}, True),
        ("a", {"a": "Skipped"}, True),
        ("a", {"a": "Failed"}, False),
        ("a.Succeeded && b.Succeeded", {"a": "Succeeded", "b": "Skipped"}, False),
        ("a.Failed || b.Errored", {"a": "Succeeded", "b": "Error"}, True),
        ("!a.Failed", {"a": "Succeeded"}, True),
        ("(a || b) && c-1.Omitted", {"a": "Failed", "b": "Succeeded", "c-1": "Omitted"}, True),
    ],
)
def test_depends(depends, phases, met):
    assert depends_met(depends, phases) is met
    assert tasks_in(depends) == set(phases)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("yes == yes", True),
        ("passed == refused", False),
        ("'a b' == 'a b'", True),
        ("sha256:ab != sha256:cd", True),
        ("3 > 2 && 1 == 1", True),
        ("true", True),
        ("a == b || c == c", True),
    ],
)
def test_when(condition, holds):
    assert when_holds(condition) is holds


@pytest.mark.parametrize(
    ("phase", "code", "again"),
    [
        ("Failed", "75", True),
        ("Failed", "137", True),
        ("Failed", "143", True),
        ("Error", "-1", True),
        ("Failed", "1", False),
        ("Failed", "65", False),
        ("Failed", "69", False),
        ("Failed", "70", False),
        ("Failed", "77", False),
        ("Failed", "78", False),
    ],
)
def test_only_passing_faults_and_signals_are_retried(phase, code, again):
    names = {"lastRetry.status": phase, "lastRetry.exitCode": code, "lastRetry.message": ""}
    assert evaluate(RETRY_EXPRESSION, names) is again


@pytest.mark.parametrize(
    ("message", "code", "again"),
    [
        ("Pod was active on the node longer than the specified deadline", "143", False),
        ("DeadlineExceeded: Pod was active on the node", "137", False),
        ("OOMKilled (exit code 137)", "137", False),
        ("main: Error (exit code 137)", "137", True),
        ("imminent node shutdown", "1", True),
        ("Evicted: The node was low on resource: memory.", "-1", True),
    ],
)
def test_the_end_of_a_steps_own_time_or_memory_is_final_and_a_lost_node_is_not(message, code, again):
    names = {"lastRetry.status": "Failed", "lastRetry.exitCode": code, "lastRetry.message": message}
    assert evaluate(RETRY_EXPRESSION, names) is again


def test_messages_can_be_matched():
    names = {"lastRetry.message": "pod deleted"}
    assert evaluate("lastRetry.message matches 'node shutdown|pod deleted'", names) is True
    assert evaluate("asInt('75') in [75, 137] && !(1 > 2)", {}) is True


@pytest.mark.parametrize(
    "text", ["__import__('os')", "a.b", "(lambda: 1)()", "[x for x in y]", "1 +", "open('/etc/passwd')", "1 < 'a'"]
)
def test_what_is_not_on_the_list_is_not_evaluated(text):
    with pytest.raises(ExpressionError):
        evaluate(text, {})


@given(st.text(max_size=40))
def test_any_text_gives_a_value_or_a_reason(text):
    try:
        value = evaluate(text, {"a": 1})
    except ExpressionError:
        return
    assert not callable(value)

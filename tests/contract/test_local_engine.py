"""The local engine on small Workflows of real processes: what Argo would do, done here."""

import json
import threading
import time
from pathlib import Path

import pytest

from pipelines.local import LocalEngine
from pipelines.nodes import node_id
from presets.errors import InvalidInput


def container(code, **fields):
    return {"container": {"image": "x", "command": ["python", "-c", code]}, **fields}


def workflow(tasks, templates, **spec):
    named = [{"name": name, **body} for name, body in templates.items()]
    dag = {"name": "main", "dag": {"tasks": tasks}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "wf", "namespace": "default"},
        "spec": {"entrypoint": "main", "templates": [dag, *named], **spec},
    }


@pytest.fixture
def run(tmp_path):
    def run(body, engine_ready=lambda _: None, observer=lambda _: None):
        engine = LocalEngine(body, tmp_path / "pods", tmp_path / "logs", observer)
        engine_ready(engine)
        return engine.run()["status"]

    return run


def phases(status):
    return {n["displayName"]: n["phase"] for n in status["nodes"].values()}


def node(status, name):
    return status["nodes"][node_id("wf", f"wf.{name}")]


def test_tasks_run_after_what_they_depend_on_and_beside_what_they_do_not(run, tmp_path):
    times_of = "{{inputs.parameters.n}}"
    code = f"""
import time
began = time.time()
time.sleep(0.6)
open({str(tmp_path)!r} + "/{times_of}", "w").write(f"{{began}} {{time.time()}}")
"""
    step = container(code, inputs={"parameters": [{"name": "n"}]})
    tasks = [
        {"name": n, "template": "step", "depends": d, "arguments": {"parameters": [{"name": "n", "value": n}]}}
        for n, d in (("a", ""), ("b", "a"), ("c", "a"), ("d", "b && c"))
    ]
    assert run(workflow(tasks, {"step": step}))["phase"] == "Succeeded"
    times = {n: [float(x) for x in (tmp_path / n).read_text().split()] for n in "abcd"}
    assert times["a"][1] <= min(times["b"][0], times["c"][0])
    assert times["d"][0] >= max(times["b"][1], times["c"][1])
    assert times["b"][0] < times["c"][1]
    assert times["c"][0] < times["b"][1]


def test_outputs_of_one_task_are_parameters_of_the_next(run, tmp_path):
    out = tmp_path / "out"
    templates = {
        "make": container(
            f"open({str(out)!r}, 'w').write('42\\n')",
            outputs={"parameters": [{"name": "x", "valueFrom": {"path": str(out)}}]},
        ),
        "use": container(
            "import sys; sys.exit(0 if '{{inputs.parameters.y}}' == '42' else 1)",
            inputs={"parameters": [{"name": "y"}]},
        ),
    }
    value = "{{tasks.make.outputs.parameters.x}}"
    tasks = [
        {"name": "make", "template": "make"},
        {
            "name": "use",
            "template": "use",
            "depends": "make",
            "arguments": {"parameters": [{"name": "y", "value": value}]},
        },
    ]
    status = run(workflow(tasks, templates))
    assert status["phase"] == "Succeeded"
    assert node(status, "make")["outputs"]["parameters"] == [{"name": "x", "value": "42"}]


def test_an_output_that_was_not_written_is_an_error(run, tmp_path):
    template = container("pass", outputs={"parameters": [{"name": "x", "valueFrom": {"path": str(tmp_path / "none")}}]})
    status = run(workflow([{"name": "a", "template": "a"}], {"a": template}))
    assert (status["phase"], node(status, "a")["phase"]) == ("Failed", "Error")
    assert "wrote no output x" in node(status, "a")["message"]


def test_an_output_of_an_earlier_run_is_not_taken_for_this_ones(run, tmp_path):
    (tmp_path / "old").write_text("stale")
    template = container("pass", outputs={"parameters": [{"name": "x", "valueFrom": {"path": str(tmp_path / "old")}}]})
    assert run(workflow([{"name": "a", "template": "a"}], {"a": template}))["phase"] == "Failed"


RETRY = {
    "limit": "3",
    "retryPolicy": "Always",
    "expression": "asInt(lastRetry.exitCode) == 75",
    "backoff": {"duration": "10ms", "factor": 2},
}


def counting(tmp_path, codes):
    count = str(tmp_path / "count")
    return f"""
import os, sys
n = int(open({count!r}).read()) if os.path.exists({count!r}) else 0
open({count!r}, "w").write(str(n + 1))
sys.exit({codes!r}[n])
"""


@pytest.mark.parametrize(
    ("codes", "phase", "attempts"),
    [([75, 75, 0], "Succeeded", 3), ([1], "Failed", 1), ([75, 65], "Failed", 2), ([75] * 4, "Failed", 4)],
)
def test_an_attempt_is_repeated_when_the_expression_says_so(run, tmp_path, codes, phase, attempts):
    template = container(counting(tmp_path, codes), retryStrategy=RETRY)
    status = run(workflow([{"name": "a", "template": "a"}], {"a": template}))
    assert (status["phase"], node(status, "a")["type"]) == (phase, "Retry")
    assert len(node(status, "a")["children"]) == attempts
    assert node(status, f"a({attempts - 1})")["outputs"]["exitCode"] == str(codes[-1])


@pytest.mark.parametrize(
    ("backoff", "attempts"),
    [
        ({"duration": "100s", "cap": "10ms"}, 4),
        ({"duration": "10ms", "maxDuration": "1h"}, 4),
        ({"duration": "2s", "maxDuration": "1s"}, 1),  # since the first attempt began, as Argo counts
    ],
)
def test_pauses_are_capped_and_retries_end_in_time(run, tmp_path, backoff, attempts):
    template = container(counting(tmp_path, [75] * 4), retryStrategy={**RETRY, "backoff": backoff})
    status = run(workflow([{"name": "a", "template": "a"}], {"a": template}))
    assert len(node(status, "a")["children"]) == attempts


def test_what_a_failed_step_says_is_in_the_nodes_message(run):
    code = """
import os, sys
open(os.environ["KAIFLOW_TERMINATION_LOG"], "w").write("Reason: what. Fix: how.")
sys.exit(65)
"""
    status = run(workflow([{"name": "a", "template": "a"}], {"a": container(code)}))
    assert node(status, "a")["message"] == "main: Error (exit code 65): Reason: what. Fix: how."
    assert status["message"] == "a: main: Error (exit code 65): Reason: what. Fix: how."


def test_what_depends_on_a_failure_is_omitted(run):
    templates = {"bad": container("raise SystemExit(1)"), "ok": container("pass")}
    tasks = [{"name": "a", "template": "bad"}, {"name": "b", "template": "ok", "depends": "a.Succeeded"}]
    status = run(workflow(tasks, templates))
    assert phases(status) == {"wf": "Failed", "a": "Failed", "b": "Omitted"}


def test_a_task_may_wait_for_a_failure(run):
    templates = {"bad": container("raise SystemExit(1)"), "ok": container("pass")}
    tasks = [{"name": "a", "template": "bad"}, {"name": "b", "template": "ok", "depends": "a.Failed"}]
    assert phases(run(workflow(tasks, templates)))["b"] == "Succeeded"


@pytest.mark.parametrize(("when", "phase"), [("{{tasks.a.status}} == Succeeded", "Succeeded"), ("x == y", "Skipped")])
def test_when_decides(run, when, phase):
    tasks = [{"name": "a", "template": "ok"}, {"name": "b", "template": "ok", "depends": "a", "when": when}]
    assert phases(run(workflow(tasks, {"ok": container("pass")})))["b"] == phase


def test_a_deadline_ends_the_step(run):
    template = container("import time; time.sleep(60)", activeDeadlineSeconds=1)
    began = time.monotonic()
    status = run(workflow([{"name": "a", "template": "a"}], {"a": template}))
    assert time.monotonic() - began < 20
    assert "deadline" in node(status, "a")["message"]


def test_progress_is_read_while_the_step_runs(run):
    code = "import os, time; p=os.environ['ARGO_PROGRESS_FILE']; open(p,'w').write('3/10'); time.sleep(0.5)"
    seen = []
    status = run(
        workflow([{"name": "a", "template": "a"}], {"a": container(code)}),
        observer=lambda w: seen.extend(n.get("progress") for n in w["status"]["nodes"].values()),
    )
    assert "3/10" in seen
    assert node(status, "a")["progress"] == "10/10"


def test_the_exit_handler_runs_after_success_and_failure_and_knows_which(run, tmp_path):
    code = f"open({str(tmp_path / 'last')!r}, 'w').write('{{{{workflow.status}}}}')"
    for ends, phase in (("pass", "Succeeded"), ("raise SystemExit(1)", "Failed")):
        status = run(
            workflow([{"name": "a", "template": "a"}], {"a": container(ends), "last": container(code)}, onExit="last")
        )
        assert status["phase"] == phase
        assert (tmp_path / "last").read_text() == phase
        assert node(status, "onExit")["phase"] == "Succeeded"


def test_a_stop_ends_steps_runs_the_exit_handler_and_starts_nothing_more(run, tmp_path):
    code = f"""
import signal, sys, time
def end(*_): open({str(tmp_path / "term")!r}, "w").write("x"); sys.exit(143)
signal.signal(signal.SIGTERM, end)
time.sleep(60)
"""
    templates = {
        "slow": container(code),
        "next": container("pass"),
        "last": container(f"open({str(tmp_path / 'last')!r}, 'w').write('x')"),
    }
    tasks = [{"name": "a", "template": "slow"}, {"name": "b", "template": "next", "depends": "a"}]
    body = workflow(tasks, templates, onExit="last")
    status = run(body, engine_ready=lambda engine: threading.Timer(1.0, engine.stop).start())
    assert (tmp_path / "term").exists()
    assert (tmp_path / "last").exists()
    assert phases(status)["b"] == "Omitted"
    assert status["phase"] == "Failed"


def test_a_step_that_ignores_sigterm_is_killed_after_its_grace(run):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    template = container(code, podSpecPatch=json.dumps({"terminationGracePeriodSeconds": 1}))
    body = workflow([{"name": "a", "template": "a"}], {"a": template})
    began = time.monotonic()
    status = run(body, engine_ready=lambda engine: threading.Timer(0.5, engine.stop).start())
    assert time.monotonic() - began < 20
    assert node(status, "a")["outputs"]["exitCode"] == "137"


def test_children_of_a_stopped_step_end_too(run, tmp_path):
    child = tmp_path / "child"
    code = f"""
import subprocess, time
open({str(child)!r}, "w").write(str(subprocess.Popen(["sleep", "60"]).pid))
time.sleep(60)
"""
    body = workflow([{"name": "a", "template": "a"}], {"a": container(code)})
    run(body, engine_ready=lambda engine: threading.Timer(1.5, engine.stop).start())
    pid = int(child.read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_raw_artifact_is_laid_where_it_belongs(run, tmp_path):
    path = tmp_path / "deep" / "in.json"
    template = container(
        f"import json; assert json.load(open({str(path)!r})) == {{'a': 'here'}}",
        inputs={"artifacts": [{"name": "r", "path": str(path), "raw": {"data": '{"a": "{{workflow.parameters.p}}"}'}}]},
    )
    arguments = {"parameters": [{"name": "p", "value": "here"}]}
    assert run(workflow([{"name": "a", "template": "a"}], {"a": template}, arguments=arguments))["phase"] == "Succeeded"


def test_a_program_that_is_not_there_is_an_error_with_its_name(run):
    template = {"container": {"image": "x", "command": ["no-such-program"]}}
    status = run(workflow([{"name": "a", "template": "a"}], {"a": template}))
    assert "cannot start no-such-program" in node(status, "a")["message"]


UNSUPPORTED = [
    ({"synchronization": {"semaphores": []}}, {}, "spec.synchronization.semaphores"),
    ({}, {"synchronization": {}}, "spec.templates[a].synchronization"),
    ({}, {"withItems": [1]}, "spec.templates[a].withItems"),
    ({}, {"suspend": {}}, "spec.templates[a].suspend"),
    ({"activeDeadlineSeconds": 1}, {}, "spec.activeDeadlineSeconds"),
    (
        {},
        {"volumes": [{"name": "v", "persistentVolumeClaim": {}}]},
        "spec.templates[a].volumes[v].persistentVolumeClaim",
    ),
    ({}, {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, "spec.templates[a].volumes[v].secret"),
    ({}, {"outputs": {"artifacts": []}}, "spec.templates[a].outputs.artifacts"),
    ({}, {"inputs": {"artifacts": [{"name": "x", "s3": {}}]}}, "spec.templates[a].inputs.artifacts[x]"),
    ({}, {"podSpecPatch": '{"hostNetwork": true}'}, "spec.templates[a].podSpecPatch.hostNetwork"),
    ({}, {"retryStrategy": {"affinity": {}}}, "spec.templates[a].retryStrategy.affinity"),
]


@pytest.mark.parametrize("depends", ["nobody", "a", "a.AnySucceeded"])
def test_a_task_that_could_never_start_is_refused(run, depends):
    with pytest.raises(InvalidInput) as caught:
        run(workflow([{"name": "a", "template": "a", "depends": depends}], {"a": container("pass")}))
    assert [error.field for error in caught.value.errors] == ["spec.templates[main].dag.tasks[a].depends"]


def test_an_output_that_is_not_text_fails_the_task_and_the_exit_handler_still_runs(run, tmp_path):
    out, last = str(tmp_path / "out"), str(tmp_path / "last")
    make = container(
        f"open({out!r}, 'wb').write(b'\\xff\\xfe')",
        outputs={"parameters": [{"name": "x", "valueFrom": {"path": out}}]},
    )
    run(
        workflow(
            [{"name": "a", "template": "a"}], {"a": make, "last": container(f"open({last!r}, 'w')")}, onExit="last"
        )
    )
    assert (tmp_path / "last").exists()


@pytest.mark.parametrize(("spec", "template", "path"), UNSUPPORTED, ids=[p for *_, p in UNSUPPORTED])
def test_what_it_cannot_do_is_refused_by_name_before_anything_starts(run, tmp_path, spec, template, path):
    body = workflow(
        [{"name": "a", "template": "a"}], {"a": container(f"open({str(tmp_path / 'ran')!r}, 'w')", **template)}, **spec
    )
    with pytest.raises(InvalidInput) as caught:
        run(body)
    assert [error.field for error in caught.value.errors] == [path]
    assert not (tmp_path / "ran").exists()

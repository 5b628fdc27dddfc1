"""``kaiflow`` as a person runs it, in a process of its own, against a state folder of the test's."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

KAIFLOW = [sys.executable, "-m", "controller.main"]

TRAINING = {
    "QuantizationConfig": {"load_in_4bit": True},
    "LoraConfig": {"r": 4},
    "TrainingArguments": {"max_steps": 6, "max_length": 256, "learning_rate": 2e-3},
    "DatasetConfig": {"context_column": "question", "response_column": "answer"},
}


def workspace(name, urls, training=None, **tuning):
    """Return the documents of a small Workspace: the Workspace and its ConfigMap."""
    body = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "resource": {"labelSelector": {"matchLabels": {"app": name}}},
        "tuning": {
            "preset": {"name": "smollm2-135m-instruct"},
            "method": "qlora",
            "config": "training",
            "input": {"urls": urls},
            "output": {"image": f"registry.example.com/test/{name}:0.0.1", "imagePushSecret": "login"},
            **tuning,
        },
    }
    text = yaml.safe_dump({"training_config": training or TRAINING})
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "training"},
        "data": {"training_config.yaml": text},
    }
    return [body, config]


class Here:
    """Commands against one state folder."""

    file: Path  # of a Workspace that has run here
    first: subprocess.CompletedProcess[str]  # how that run ended

    def __init__(self, folder):
        self.folder = folder
        self.said = folder / "said.txt"  # what a started command printed
        self.environment = {**os.environ, "KAIFLOW_STATE": str(folder), "NO_COLOR": "1", "OMP_WAIT_POLICY": "passive"}

    def write(self, documents, name="workspace.yaml"):
        path = self.folder / name
        path.write_text(yaml.safe_dump_all(documents))
        return path

    def kaiflow(self, *arguments, timeout=420):
        command = [*KAIFLOW, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=self.environment, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, *arguments):
        command = [*KAIFLOW, *map(str, arguments)]
        with self.said.open("wb") as said:
            return subprocess.Popen(command, env=self.environment, stdout=said, stderr=said)

    def get(self, name):
        return json.loads(self.kaiflow("get", name, "-o", "json").stdout)

    def wait_for(self, name, step, word, timeout=240):
        """Wait until the log of a step holds a word."""
        log = self.state(name) / "logs" / f"{step}.log"
        deadline = time.monotonic() + timeout
        while not (log.exists() and word in log.read_text()):
            assert time.monotonic() < deadline, f"{log} never said {word}"
            time.sleep(0.02)

    def steps(self):
        """Return the pids of step processes that work in this folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = entry.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "steps." in line and str(self.folder) in line:
                found.append(int(entry.parent.name))
        return found

    def state(self, name):
        return self.folder / ".kaiflow" / "default" / name

    def events(self, name, step):
        """Return what a step has told in the newest run."""
        return [json.loads(line) for line in (self.state(name) / f"logs/{step}.log").read_text().splitlines()]

"""One step of a Workflow as a real pod, where the local engine would start a process: for tests alone.

``python -m tests.cluster.step_pod POD.json WORKDIR VERB``: the pod that Argo makes of the template, its image, account,
security context, mounts and labels. As there, an init container lays the request down, and what the step wrote is
brought out by a container beside it. The step's log and its exit code are passed on.

Requests for processors and memory are left out: the one node of a test has less than a GPU machine.
"""

import base64
import io
import json
import os
import signal
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from steps.cluster import Cluster

WORKDIR = "{{workflow.parameters.workdir}}"
INSIDE = "/mnt/work"  # where no image of a checkout has anything
POLL_SECONDS = 0.3
# What Argo's executor does around a step's command, and in the container beside it.
LAY_DOWN = 'mkdir -p "$(dirname "$1")" && printf %s "$REQUEST" > "$1"'
RUN = 'ended=$1; shift; "$@"; code=$?; touch "$ended"; exit $code'
BRING_OUT = 'while [ ! -e "$1" ]; do sleep 0.2; done; cd "$2" && mkdir -p outputs && tar c outputs | base64'


def pod_of(workflow: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """Return the pod of a template, without what is known only when it runs."""
    spec, container = workflow["spec"], dict(template["container"])
    container["resources"] = {"limits": container.get("resources", {}).get("limits", {})}
    container["name"], labels = "main", template["metadata"]["labels"]
    beside = {
        key: container[key]
        for key in ("image", "imagePullPolicy", "securityContext", "volumeMounts")
        if key in container
    }
    own = {
        key: template[key]
        for key in ("serviceAccountName", "nodeSelector", "affinity", "tolerations", "volumes")
        if key in template
    }
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"labels": labels, "annotations": template["metadata"].get("annotations", {})},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": spec["serviceAccountName"],
            "automountServiceAccountToken": template["automountServiceAccountToken"],
            "securityContext": spec["securityContext"],
            "initContainers": [{**beside, "name": "init"}],
            "containers": [container, {**beside, "name": "wait"}],
            **own,
            **json.loads(template["podSpecPatch"]),
        },
    }  # fmt: skip
    placed: dict[str, Any] = json.loads(json.dumps(body).replace(WORKDIR, INSIDE))
    return placed


def run(body: dict[str, Any], workdir: Path, verb: str) -> int:
    """Run the pod of a step, and return the exit code of its command."""
    folder, request = f"{INSIDE}/{verb}", (workdir / verb / "request.json").read_text()
    init, (main, wait) = body["spec"]["initContainers"][0], body["spec"]["containers"]
    init["command"] = ["sh", "-c", LAY_DOWN, "sh", f"{folder}/request.json"]
    init["env"] = [{"name": "REQUEST", "value": request}]
    ended = f"{INSIDE}/.ended"
    main["command"] = ["sh", "-c", RUN, "sh", ended, *main["command"]]
    wait["command"] = ["sh", "-c", BRING_OUT, "sh", ended, folder]
    cluster = Cluster.connect()
    pods = f"/api/v1/namespaces/{body['metadata']['namespace']}/pods"
    path = f"{pods}/{cluster.post(pods, body)['metadata']['name']}"

    def stop(*_: object) -> None:
        cluster.delete(path)
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    code, message = _follow(cluster, path)
    if code:
        Path(os.environ["KAIFLOW_TERMINATION_LOG"]).write_text(message)
    else:
        packed = base64.b64decode(cluster.text(f"{path}/log", {"container": "wait"}) or "")
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(workdir / verb, filter="data")
    return code


def _follow(cluster: Cluster, path: str) -> tuple[int, str]:
    """Pass the log on until the pod has ended; return the exit code and the message of the step."""
    passed = 0
    while True:
        status = (cluster.get(path) or {"status": {"phase": "Failed", "reason": "PodDeleted"}})["status"]
        log = cluster.text(f"{path}/log", {"container": "main"}) or ""
        sys.stdout.write(log[passed:])
        sys.stdout.flush()
        passed = len(log)
        if status["phase"] in ("Succeeded", "Failed"):
            states = {s["name"]: s["state"].get("terminated", {}) for s in status.get("containerStatuses", ())}
            ended = states.get("main", {})
            return int(ended.get("exitCode", 1)), str(ended.get("message") or status.get("reason", ""))
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(run(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.argv[3]))

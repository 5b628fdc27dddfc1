"""How fast do changes of Workflows come into Workspaces' statuses, and for how much CPU?  Against the same by kopf.

``KUBECONFIG`` names a real API server. Ours makes the Workflows of 1,000 Workspaces first; then both, in turn and in
rounds, mirror the same number of changes at the same pace. Ours runs as in a pod, by a service account's files.
"""

import argparse
import asyncio
import base64
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parent)  # not this folder, in which this file would stand for the package of its name

from benchmarks.contestants import CONTESTANTS, Process
from benchmarks.crowd import WORKSPACES, Crowd
from controller.kube_api import Api, ApiError
from presets.crd import crd
from tests.cluster.argo import argo_crd
from tests.cluster.conftest import without_cel


@dataclass(frozen=True)
class Figures:
    """What a contestant took for one round of changes."""

    changes: int
    seconds: float
    p50_seconds: float
    p99_seconds: float
    writes_per_change: float
    cpu_seconds: float
    rss_mib: float
    unseen: int = 0  # changes that were in no status two minutes later

    @property
    def changes_per_cpu_second(self) -> float:
        """What a second of CPU is enough for."""
        return self.changes / self.cpu_seconds


async def round_of(process: Process, crowd: Crowd, first: int, changes: int, pace: float) -> Figures:
    """Make ``changes`` changes at ``pace`` a second, and wait until all are seen."""
    crowd.lags.clear()
    crowd.waiting.clear()
    crowd.writes = 0
    cpu, began = process.cpu_seconds(), time.monotonic()
    tasks = []
    for index in range(changes):
        await asyncio.sleep(max(0.0, began + index / pace - time.monotonic()))
        name = crowd.names[index % len(crowd.names)]
        tasks.append(asyncio.create_task(crowd.change(name, first + index)))
    await asyncio.gather(*tasks)
    deadline = time.monotonic() + 120
    while any(crowd.waiting.values()) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    seconds = time.monotonic() - began
    unseen = sum(map(len, crowd.waiting.values()))
    lags = sorted(crowd.lags)
    return Figures(
        changes, seconds, lags[len(lags) // 2], lags[int(len(lags) * 0.99)], crowd.writes / changes,
        process.cpu_seconds() - cpu, process.rss_mib(), unseen,
    )  # fmt: skip


def as_in_a_pod(folder: Path) -> dict[str, str]:
    """Lay out a service account's files for the administrator's own account, and return the variables of a pod."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    cluster = config["clusters"][0]["cluster"]
    authority = cluster.get("certificate-authority-data")
    text = base64.b64decode(authority) if authority else Path(cluster["certificate-authority"]).read_bytes()
    (folder / "ca.crt").write_bytes(text)
    return {
        "KUBERNETES_SERVICE_HOST": server.hostname or "", "KUBERNETES_SERVICE_PORT": str(server.port or 443),
        "KAIFLOW_SERVICE_ACCOUNT": str(folder),
    }  # fmt: skip


async def account(api: Api, namespace: str, folder: Path) -> dict[str, str]:
    """Make an account that may do everything in the namespace, and return how a process becomes it."""
    bind = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "bench", "namespace": namespace}],
    }  # fmt: skip
    await api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", bind)
    await api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "bench"}})
    secret = {
        "metadata": {"name": "bench", "annotations": {"kubernetes.io/service-account.name": "bench"}},
        "type": "kubernetes.io/service-account-token",
    }
    await api.create(f"/api/v1/namespaces/{namespace}/secrets", secret)
    while True:
        found = await api.get(f"/api/v1/namespaces/{namespace}/secrets/bench") or {}
        if "token" in (found.get("data") or {}):
            (folder / "token").write_bytes(base64.b64decode(found["data"]["token"]))
            return as_in_a_pod(folder)
        await asyncio.sleep(0.2)


async def contest(count: int, changes: int, pace: float, rounds: int, folder: Path) -> dict[str, list[Figures]]:
    """Return the figures of each contestant, round by round."""
    figures: dict[str, list[Figures]] = {who: [] for who in CONTESTANTS}
    async with await Api.connect() as api:
        for body in (without_cel(crd()), argo_crd("Workflow"), argo_crd("CronWorkflow")):
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{body['metadata']['name']}"
            await api.apply(path, body)
        await asyncio.sleep(3)
        namespace = f"bench-{os.getpid()}"
        await api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        await api.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "registry-login"}})
        environment = await account(api, namespace, folder)
        crowd = Crowd(api, namespace, count)
        watching = asyncio.create_task(crowd.reflector.run())
        try:
            maker, began = Process("kaiflow", namespace, folder, environment), time.monotonic()
            await crowd.make()
            await crowd.runs_made()
            print(f"{count} Workspaces have their Workflows after {time.monotonic() - began:.0f} s", flush=True)
            await asyncio.sleep(35)  # until the process that compiles has ended
            maker.end()
            number = 1
            for _ in range(rounds):
                for who in CONTESTANTS:
                    process = Process(who, namespace, folder, environment)
                    await asyncio.sleep(20)  # until it has listed everything, and written what it wants to write
                    figures[who].append(await round_of(process, crowd, number, changes, pace))
                    process.end()
                    print(who, figures[who][-1], flush=True)
                    number += changes
        finally:
            watching.cancel()
            for name in crowd.names:
                path = f"{WORKSPACES}/namespaces/{namespace}/workspaces/{name}"
                await api.merge(path, {"metadata": {"finalizers": None}})
            try:
                await api.delete(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{namespace}")
                await api.delete(f"/api/v1/namespaces/{namespace}")
            except ApiError as error:
                print(error)
    return figures


def tell(figures: dict[str, list[Figures]], count: int, pace: float) -> None:
    """Print the table of medians and write all figures."""
    table = Table(
        "contestant", "changes / CPU s", "ours / its", "p50 s", "p99 s", "writes / change", "CPU s", "RSS MiB"
    )
    middle = {who: sorted(f, key=lambda r: r.cpu_seconds)[len(f) // 2] for who, f in figures.items()}
    for who, run in middle.items():
        ratio = middle["kaiflow"].changes_per_cpu_second / run.changes_per_cpu_second
        table.add_row(
            who, f"{run.changes_per_cpu_second:.0f}", f"{ratio:.1f} x", f"{run.p50_seconds:.3f}",
            f"{run.p99_seconds:.3f}", f"{run.writes_per_change:.2f}", f"{run.cpu_seconds:.1f}", f"{run.rss_mib:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)
    body = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}",
        "workspaces": count,
        "changes_a_second": pace,
        "rounds": {who: [asdict(run) for run in runs] for who, runs in figures.items()},
    }
    (HERE / "controller.json").write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspaces", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=5000)
    parser.add_argument("--pace", type=float, default=100.0, help="changes a second")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(contest(options.workspaces, options.changes, options.pace, options.rounds, Path(folder)))
    tell(found, options.workspaces, options.pace)

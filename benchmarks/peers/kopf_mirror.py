"""The same mirror by kopf: ``kopf run`` of this file, in one namespace.  The peer of ``benchmarks/controller.py``.

``on.event`` and an index, as those advise who want no finalizers and annotations of kopf's on users' objects; the
status is written over our own connection, the lightest that there is.
"""

import kopf

from controller.cluster_status import cluster_status
from controller.intent import Intent
from controller.kube_api import Api
from controller.observed_workflow import pruned
from controller.performing import WORKSPACES, difference
from steps.contract import timestamp

NOTHING = Intent("", "", "", scheduled=False, serves=True, plan_status={})


@kopf.on.startup()
async def begin(settings, memo, **_):
    """Watch with as many workers, and tell no events."""
    settings.posting.enabled = False
    settings.execution.max_workers = 8
    memo.api = await Api.connect()


@kopf.index("kaito.sh", "v1beta1", "workspaces")
async def workspaces(name, body, **_):
    """Keep each Workspace as it is."""
    return {name: dict(body)}


@kopf.on.event("argoproj.io", "v1alpha1", "workflows", labels={"app.kubernetes.io/managed-by": "kaiflow"})
async def mirror(body, labels, namespace, workspaces, memo, **_):
    """Write the status of the Workflow's Workspace, where it has changed."""
    found = workspaces.get(labels["kaito.sh/workspace"])
    if not found:
        return
    (workspace,) = found
    before = workspace.get("status") or {}
    after = cluster_status(workspace, NOTHING, [pruned(dict(body))], None, timestamp())
    after.pop("plan", None)
    changed = difference({k: v for k, v in before.items() if k != "plan"}, after)
    if changed:
        path = f"{WORKSPACES}/namespaces/{namespace}/workspaces/{workspace['metadata']['name']}/status"
        await memo.api.merge(path, {"status": changed})

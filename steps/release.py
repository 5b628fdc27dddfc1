"""release: give back what provision took, right after the training or at the run's end, whatever that was.

Safe to repeat. What a deployment of the Workspace was placed on stays; what others have given is never touched; on
one's own machine nothing was taken.
"""

from presets.node_request import NodeRequest
from steps import logs
from steps.cluster import Cluster
from steps.contract import Context, Request, Result
from steps.node_claims import own_labels, workspace_labels
from steps.node_keeping import deployments_path, is_rolled_out, needed_by_deployment, rolled_out_at
from steps.node_provisioner import Clock, Provisioner, given_back, provisioner, until_gone


def run(request: Request, context: Context) -> Result:
    """Release the run's nodes."""
    if request.target == "local":
        context.progress(1, 1)
        return Result(outputs={"released": "nothing: this machine stays"})
    wanted = request.part("node", NodeRequest)
    cluster, clock = Cluster.connect(), Clock()
    released = release(request, provisioner(wanted, cluster, clock, context.work), cluster, clock)
    context.progress(1, 1)
    return Result(outputs={"released": released})


def release(request: Request, maker: Provisioner, cluster: Cluster, clock: Clock) -> str:
    """Give the run's nodes back; return what was done, in words."""
    run = request.inputs["run"]
    labels = own_labels(run, request.workspace) if run else workspace_labels(request.workspace)
    kept: list[str] = []
    asked: list[str] = []
    given: list[str] = []
    for node in maker.own(labels):
        needed = needed_by_deployment(cluster, request.workspace.namespace, node.labels)
        (kept if needed else asked).append(node.name)
    asked += _of_earlier_runs(request, maker, cluster, kept)
    failed = given_back(maker, dict.fromkeys(asked), given.append)  # one may be both
    for name in given:
        logs.event("released", node=name)
    left = until_gone(maker, given, labels, clock)
    if failed is not None:  # the others are gone all the same
        raise failed
    said = [
        f"{', '.join(sorted(set(given) - set(left)))} gone" if set(given) - set(left) else "",
        f"{', '.join(left)} on its way out" if left else "",
        f"{', '.join(kept)} kept: it serves" if kept else "",
    ]
    return "; ".join(filter(None, said)) or "nothing was held"


def _of_earlier_runs(request: Request, maker: Provisioner, cluster: Cluster, kept: list[str]) -> list[str]:
    """Return the nodes that an earlier run's server was on, now that other servers answer.

    Only once all servers have moved: until then those on the older node answer, though the Deployment names another.
    And only nodes older than that, and than ours: a younger one is of a run that has followed.
    """
    deployment = cluster.get(_deployment(request))
    if not is_rolled_out(deployment):
        return []
    nodes = maker.own(workspace_labels(request.workspace))
    before = min([rolled_out_at(deployment), *(n.created_at for n in nodes if n.name in kept and n.created_at)])
    left = [n for n in nodes if n.name not in kept and not n.leaving and "" < n.created_at < before]
    return [n.name for n in left if not needed_by_deployment(cluster, request.workspace.namespace, n.labels)]


def _deployment(request: Request) -> str:
    return f"{deployments_path(request.workspace.namespace)}/{request.workspace.name}"

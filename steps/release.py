"""release: give back what provision took, right after the training or at the run's end, whatever that was.

Safe to repeat. What a deployment of the Workspace was placed on stays; what others have given is never touched; on
one's own machine nothing was taken.
"""

from presets.node_request import NodeRequest
from steps import logs
from steps.cluster import Cluster
from steps.contract import Context, Request, Result
from steps.node_claims import own_labels
from steps.node_keeping import needed_by_deployment
from steps.node_provisioner import POLL_SECONDS, Clock, Provisioner, provisioner

GONE_SECONDS = 300  # how long the end of a machine is waited for; its finalizer goes on without us


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
    labels = own_labels(request.inputs["run"], request.workspace)
    kept, given = [], []
    for node in maker.own(labels):
        if needed_by_deployment(cluster, request.workspace.namespace, node.labels):
            kept.append(node.name)
            continue
        maker.give_back(node.name)
        given.append(node.name)
        logs.event("released", node=node.name, instance_type=node.instance_type)
    until = clock.now() + GONE_SECONDS
    while (left := [n.name for n in maker.own(labels) if n.name in given]) and clock.now() < until:
        clock.sleep(POLL_SECONDS)
    said = [
        f"{', '.join(sorted(set(given) - set(left)))} gone" if set(given) - set(left) else "",
        f"{', '.join(left)} on its way out" if left else "",
        f"{', '.join(kept)} kept: it serves" if kept else "",
    ]
    return "; ".join(filter(None, said)) or "nothing was held"

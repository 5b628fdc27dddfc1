"""``kaiflow nodes``: which nodes do runs hold on the cluster, for what, and which has an unclean end left?"""

import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from controller.options import Aks, Context, Kubeconfig, Output, Provisioner, node_placement, use_kubeconfig
from controller.output import Format


def nodes(
    orphans: Annotated[bool, typer.Option("--orphans", help="Only nodes that nothing needs any more.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="With --orphans: give them back.")] = False,
    provisioner: Provisioner = "karpenter",
    aks: Aks = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = Format.TABLE,
) -> None:
    """List the GPU nodes that runs have made on the cluster, what each is held for, and what it costs."""
    from controller.output import say, write_data, write_table
    from presets.errors import ConfigError
    from presets.gpus import skus
    from presets.node_request import NodeRequest
    from steps.cluster import Cluster
    from steps.node_claims import CLAIMS
    from steps.node_orphans import held_nodes
    from steps.node_provisioner import Clock, given_back
    from steps.node_provisioner import provisioner as maker_of

    if delete and not orphans:
        raise ConfigError("OptionMissing", "--delete gives back orphans only.", fix="Add --orphans.")
    use_kubeconfig(kubeconfig)
    cluster = Cluster.connect(context)
    if provisioner == "karpenter" and cluster.get(CLAIMS.rpartition("/")[0]) is None:
        raise ConfigError(
            "KarpenterMissing",
            "This cluster knows no NodeClaims: Karpenter makes no nodes here.",
            fix="Name who does: --provisioner aks --aks SUBSCRIPTION/GROUP/CLUSTER.",
        )
    wanted = NodeRequest(node_placement(provisioner, "azure", aks), (), 1)
    maker = maker_of(wanted, cluster, Clock(), Path.cwd())
    table = skus()
    found = [held for held in held_nodes(maker, cluster) if held.orphan or not orphans]
    rows = [_row(held, table) for held in found]
    if output in (Format.JSON, Format.YAML):
        write_data(rows, output)
    elif rows:
        write_table([key.upper() for key in rows[0]], [list(row.values()) for row in rows])
    else:
        say("No run holds a node." if not orphans else "No node is held for nothing.")
    if delete:
        left = given_back(maker, [held.node.name for held in found], lambda name: say(f"Gave {name} back."))
        if left is not None:
            raise left


def _row(held: Any, table: Any) -> dict[str, str]:  # noqa: ANN401  (steps.node_orphans.HeldNode)
    from steps.contract import OWNER_LABEL, OWNER_NAMESPACE_LABEL

    node = held.node
    sku = table.get(node.instance_type.lower())
    return {
        "name": node.name,
        "workspace": f"{node.labels.get(OWNER_NAMESPACE_LABEL)}/{node.labels.get(OWNER_LABEL)}",
        "instance-type": node.instance_type,
        "an-hour": f"${sku.price.usd_per_hour:.2f}" if sku and sku.price else "",
        "age": _age(node.created_at),
        "run": held.phase,
        "held-for": "leaving" if node.leaving else held.held_for or "nothing",
    }


def _age(created_at: str) -> str:
    if not created_at:
        return ""
    seconds = time.time() - datetime.fromisoformat(created_at).timestamp()
    return f"{seconds / 3600:.1f}h" if seconds >= 3600 else f"{seconds / 60:.0f}m"

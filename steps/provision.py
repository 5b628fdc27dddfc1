"""provision: a machine to train on.  This version knows one provisioner: the machine that is already there."""

from dataclasses import asdict

from steps import logs
from steps.contract import Context, Request, Result, require_local
from steps.machine import GIB, Machine, describe


def run(request: Request, context: Context) -> Result:
    """Say what this machine has; on a cluster, say that nodes are not provisioned yet."""
    require_local(request, "ProvisionerNotSupported", "provision nodes")
    machine = describe()
    logs.event("machine", **asdict(machine))
    context.progress(1, 1)
    return Result(outputs={"nodes": summary(machine), "cached": "false"}, figures=asdict(machine))


def summary(machine: Machine) -> str:
    """Return one line such as ``2 cores, 24 GiB, no GPU``."""
    gpus = f"{len(machine.gpus)} x {machine.gpus[0]}" if machine.gpus else "no GPU"
    return f"{machine.cores} cores, {machine.memory_bytes / GIB:.0f} GiB, {gpus}"

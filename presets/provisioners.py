"""Who makes nodes, by name.  Read at every start: nothing heavy."""

from collections.abc import Mapping
from typing import Literal

Provisioner = Literal["karpenter", "aks", "byo"]
Cloud = Literal["azure", "aws", "nap"]  # nap: AKS node auto-provisioning
GpuDriver = Literal["Install", "None"]
Spot = Literal["never", "first", "only"]
WAIT_SECONDS = 1200  # for one attempt at a node
END_SECONDS = 300  # how long the end of a machine is waited for; its finalizer goes on without us
PROVIDERS: Mapping[Cloud, str] = {"azure": "azure", "nap": "azure", "aws": "aws"}  # as the table of machines has them

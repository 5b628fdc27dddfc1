"""A Workspace's Workflow and CronWorkflow, built in a process of its own.

Hera, and the models that it brings, take a second and 30 MiB: the controller's loop waits for neither, and the process
ends when nothing has been asked of it for a while.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from controller.intent import asked, offered, planned
from controller.kube_api import Object
from pipelines.plan import Placement
from presets.errors import KaiflowError
from steps.contract import owner_reference

T = TypeVar("T")

IDLE_SECONDS = 30.0
GENERATION_LABEL = "kaiflow.dev/asked"
OFFER_LABEL = "kaiflow.dev/offered"

# What stands in for a Workspace that is not valid any more when its nodes are given back: of a plan's parts only who
# makes nodes, and for whom, counts then.
SMALLEST: Object = {
    "resource": {"labelSelector": {"matchLabels": {"kaiflow.dev/cleanup": "true"}}}, "inference": None,
    "tuning": {
        "preset": {"name": "smollm2-135m-instruct"}, "method": "lora",
        "input": {"urls": ["https://example.com/none.jsonl"]},
        "output": {"image": "example.com/none:0", "imagePushSecret": "none"},
    },
}  # fmt: skip


def compiled(body: Object, config_map: Object | None, placement: Placement) -> tuple[Object, Object | None]:
    """Return the Workflow, and the CronWorkflow where there is a schedule; both belong to the Workspace.

    Raises:
        InvalidInput: the Workspace breaks rules.
        ConfigError: it fits no machine, or Argo would refuse the Workflow.
    """
    from pipelines.workflow import compile_cron, compile_workflow

    plan = planned(body, config_map, (), placement)
    owner = owner_reference(body["metadata"]["name"], body["metadata"]["uid"])
    made = [compile_workflow(plan), compile_cron(plan)]
    for item in made:
        if item is not None:
            item["metadata"]["ownerReferences"] = [owner]
            item["metadata"]["labels"] |= {
                GENERATION_LABEL: asked(body, config_map), OFFER_LABEL: offered(placement),
            }  # fmt: skip
    return made[0] or {}, made[1]


def compiled_cleanup(body: Object, _config_map: Object | None, placement: Placement, run: str = "") -> Object:
    """Return the Workflow that gives a Workspace's nodes back; it outlives the Workspace, and is nobody's.

    Of one ``run`` alone, where it is named: that one goes with the Workspace.

    Neither ConfigMap nor Secrets are needed for it: they may have been deleted along with the Workspace. Nor need what
    is asked for now be valid: what earlier revisions have taken is given back all the same.

    Raises:
        ConfigError: Argo would refuse the Workflow.
    """
    from pipelines.workflow import compile_cleanup

    alone = {**body, "tuning": {key: value for key, value in (body.get("tuning") or {}).items() if key != "config"}}
    try:
        plan = planned(alone, None, (), placement)
    except KaiflowError:
        bare = {key: value for key, value in body["metadata"].items() if key != "annotations"}
        nodes = replace(placement.nodes, fallback_instance_types=(), zones=(), spot="never")
        plan = planned({**body, **SMALLEST, "metadata": bare}, None, (), replace(placement, nodes=nodes))
    made = compile_cleanup(plan, run)
    if run:
        made["metadata"]["ownerReferences"] = [owner_reference(body["metadata"]["name"], body["metadata"]["uid"])]
    return made


class Compiler:
    """Compiles in a process that is there only while it is needed."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._pool: ProcessPoolExecutor | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._running = 0

    async def __call__(self, body: Object, config_map: Object | None) -> tuple[Object, Object | None]:
        """Return what :func:`compiled` does."""
        return await self._held(compiled, body, config_map)

    async def cleanup(self, body: Object, config_map: Object | None, run: str = "") -> Object:
        """Return what :func:`compiled_cleanup` does."""
        return await self._held(partial(compiled_cleanup, run=run), body, config_map)

    async def _held(self, what: Callable[..., T], body: Object, config_map: Object | None) -> T:
        self._running += 1
        try:
            return await self._asked(what, body, config_map)
        finally:
            self._running -= 1
            self._close_later()

    async def _asked(self, what: Callable[..., T], body: Object, config_map: Object | None) -> T:
        loop = asyncio.get_running_loop()
        for again in (True, False):
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, mp_context=get_context("forkserver"))
            pool = self._pool
            try:
                return await loop.run_in_executor(pool, what, body, config_map, self._placement)
            except BrokenProcessPool:  # killed for memory, say
                self._pool = None if self._pool is pool else self._pool
                if not again:
                    raise
        raise AssertionError("unreachable")

    def _close_later(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._closing = asyncio.get_running_loop().call_later(IDLE_SECONDS, self.close)

    def close(self) -> None:
        """End the process, unless it is at work."""
        if self._pool is not None and not self._running:
            self._pool.shutdown(wait=False)
            self._pool = None

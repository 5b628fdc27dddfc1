"""deploy: the tuned model behind an HTTP endpoint that has answered a real prompt.

On a cluster a Deployment and a Service (``steps.deploy_cluster``). On one's own machine a detached server on a
loopback port, which a second run of the same adapter finds running and keeps.
"""

import socket

from presets.errors import ConfigError, UnavailableError
from presets.recipe import DeployRecipe
from steps import local_server, logs
from steps.cluster import Cluster
from steps.content_keys import content_key
from steps.contract import Context, Request, Result
from steps.deploy_cluster import deploy
from steps.node_provisioner import Clock
from steps.server_answer import answers
from steps.serving_files import Served, lay_out_server


def run(request: Request, context: Context) -> Result:
    """Serve the adapter of ``inputs.run``, unless the very same is served already."""
    if request.part("deploy", DeployRecipe).runtime == "vllm":
        raise ConfigError(
            "RuntimeNotSupported", "This version serves by transformers.", fix="Set tuning.deploy.runtime to auto."
        )
    if request.target == "cluster":
        return deploy(request, context, Cluster.connect(), Clock())
    return _deploy_here(request, context)


def _deploy_here(request: Request, context: Context) -> Result:
    port = int(request.inputs["port"])
    serves = content_key("deploy", run=request.inputs["run"], weights=request.inputs["weights"], port=port)
    running = local_server.find(context.work)
    if running is not None and running.serves == serves and answers(running.endpoint) is None:
        logs.event("reused", endpoint=running.endpoint, pid=running.pid)
        return _result(request, running, cached=True)
    if running is None or running.port != port:
        _require_free(port)  # before the old server is stopped: it goes on answering when the new one cannot start
    local_server.stop(context.work)
    server = local_server.start(
        context.work, lay_out_server(Served.of(request, "127.0.0.1", port), context.work), serves
    )
    problem = answers(server.endpoint)
    if problem is not None:
        local_server.stop(context.work)
        raise problem
    context.progress(1, 1)
    return _result(request, server, cached=False)


def _require_free(port: int) -> None:
    if port == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UnavailableError(
                "PortTaken",
                f"Port {port} is in use on this machine ({error.strerror}).",
                fix="Stop what uses it, or leave --port out: a free port is then chosen.",
            ) from error


def _result(request: Request, server: local_server.Server, *, cached: bool) -> Result:
    logs.event("serving", endpoint=server.endpoint, pid=server.pid, model=request.workspace.name)
    return Result(
        outputs={"endpoint": server.endpoint, "model": request.workspace.name, "cached": str(cached).lower()},
        figures={"pid": server.pid},
    )

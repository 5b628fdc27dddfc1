"""deploy: the tuned model behind an HTTP endpoint that has answered a real prompt.

On one's own machine: a detached server on a loopback port, which a second run of the same adapter finds
running and keeps.
"""

import json
import shutil
import socket
from dataclasses import asdict
from pathlib import Path

import urllib3

from presets.errors import ConfigError, KaiflowError, TryAgainError, UnavailableError
from presets.recipe import DeployRecipe, ModelRecipe, QuantizationRecipe
from steps import local_server, logs
from steps.base_weights import lay_out
from steps.contract import Context, Request, Result, content_key, require_local
from steps.store import open_store, require

PROBE = {"prompt": "Hello", "generate_kwargs": {"max_new_tokens": 8}}


def run(request: Request, context: Context) -> Result:
    """Serve the adapter of ``inputs.run``, unless the very same is served already."""
    require_local(request, "DeployNotSupported", "deploy")
    recipe = request.part("deploy", DeployRecipe)
    if recipe.runtime == "vllm":
        raise ConfigError("RuntimeNotSupported", "vLLM needs a GPU node.", fix="Set tuning.deploy.runtime to auto.")
    port = int(request.inputs["port"])
    serves = content_key("deploy", run=request.inputs["run"], weights=request.inputs["weights"], port=port)
    running = local_server.find(context.work)
    if running is not None and running.serves == serves and _answers(running) is None:
        logs.event("reused", endpoint=running.endpoint, pid=running.pid)
        return _result(request, running, cached=True)
    if running is None or running.port != port:
        _require_free(port)  # before the old server is stopped: it goes on answering when the new one cannot start
    local_server.stop(context.work)
    server = local_server.start(context.work, _configure(request, context, port), serves)
    problem = _answers(server)
    if problem is not None:
        local_server.stop(context.work)
        raise problem
    context.progress(1, 1)
    return _result(request, server, cached=False)


def _configure(request: Request, context: Context, port: int) -> Path:
    """Lay out what the server reads, and write its configuration."""
    store = open_store(request.store)
    folders = {"weights": context.work / "weights", "adapter": context.work / "adapter"}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    weights = require(store, request.inputs["weights"], "base model")
    lay_out(store, weights, context.work / "image", folders["weights"])
    store.check_out(require(store, request.inputs["run"], "adapter"), folders["adapter"])
    config = {
        **{name: str(path) for name, path in folders.items()},
        "model": asdict(request.part("model", ModelRecipe)),
        "quantization": asdict(request.part("quantization", QuantizationRecipe)),
        "name": request.workspace.name,
        "host": "127.0.0.1",
        "port": port,
    }
    path = context.work / "serve.json"
    path.write_text(json.dumps(config, indent=1))
    return path


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


def _answers(server: local_server.Server) -> KaiflowError | None:
    """Return None when the server answers a real prompt, else what is wrong."""
    try:
        response = urllib3.request("POST", f"{server.endpoint}/chat", json=PROBE, timeout=120.0, retries=False)
        if response.status == 200 and isinstance(response.json().get("Result"), str):
            return None
        problem = f"it answered {response.status}"
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        problem = type(error).__name__
    return TryAgainError("ServerSilent", f"The server does not answer a prompt: {problem}.", fix="Read server.log.")


def _result(request: Request, server: local_server.Server, *, cached: bool) -> Result:
    logs.event("serving", endpoint=server.endpoint, pid=server.pid, model=request.workspace.name)
    return Result(
        outputs={"endpoint": server.endpoint, "model": request.workspace.name, "cached": str(cached).lower()},
        figures={"pid": server.pid},
    )

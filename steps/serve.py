"""``python -m steps.serve --config FILE``: the inference server of one adapter and its base.

Loads, then listens, then says where in ``--announce``: a port of 0 takes a free one. SIGTERM stops taking
requests, finishes those that wait, and exits 0.
"""

import argparse
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from presets.recipe import ModelRecipe, QuantizationRecipe
from steps import logs
from steps.machine import thread_environment

BACKLOG = 128


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What to serve and where."""

    weights: Path
    adapter: Path
    model: ModelRecipe
    quantization: QuantizationRecipe
    name: str  # under which the adapter answers
    host: str
    port: int


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m steps.serve", description="Serve one adapter and its base.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file of a ServeConfig")
    parser.add_argument("--announce", type=Path, required=True, help="file to write pid and port to, when listening")
    options = parser.parse_args(arguments)
    os.environ.update({k: v for k, v in thread_environment().items() if k not in os.environ})
    logs.configure({"step": "serve"})
    config = TypeAdapter(ServeConfig).validate_json(options.config.read_bytes())
    listener = listen(config.host, config.port)
    serve(config, listener, options.announce)
    return 0


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket; the port is taken before the model is loaded, so that nobody else gets it."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def serve(config: ServeConfig, listener: socket.socket, announce: Path) -> None:
    """Load the model and answer on ``listener`` until SIGTERM."""
    import uvicorn

    from steps.adapter import load_adapter
    from steps.base_model import compute_dtype, load_base, load_tokenizer
    from steps.generation import Generator
    from steps.http_api import Models, build
    from steps.quiet import quiet_libraries

    quiet_libraries()
    tokenizer = load_tokenizer(config.weights, config.model)
    model = load_adapter(load_base(config.weights, config.quantization), config.adapter).eval()
    generator = Generator(model, tokenizer, compute_dtype(config.quantization.compute_dtype))
    app = build(Models(base=config.model.preset, adapter=config.name), generator)
    port = listener.getsockname()[1]
    listener.listen(BACKLOG)  # before it is told of: whoever comes now waits, and is not refused
    logs.event("listening", host=config.host, port=port, adapter=config.name, base=config.model.preset)
    part = announce.with_suffix(".part")
    part.write_text(json.dumps({"pid": os.getpid(), "port": port}))
    part.replace(announce)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=60, access_log=False))
    server.run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())

"""What the inference server reads, laid out in a folder: base, adapter, configuration.

On a cluster an init container of the server's pod does it (``python -m steps.serving_files``), told by the pod's own
environment: a server that starts again finds the files there.
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from presets.errors import KaiflowError
from presets.recipe import ModelRecipe, QuantizationRecipe
from steps import logs
from steps.base_weights import lay_out
from steps.contract import Request
from steps.store import open_store, require
from steps.termination import say_why

VARIABLE = "KAIFLOW_SERVE"
CONFIG_FILE = "serve.json"


class Served(BaseModel):
    """What is served, by digest, and where it lies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str
    weights: str
    run: str
    name: str  # under which the adapter answers
    model: ModelRecipe
    quantization: QuantizationRecipe
    host: str
    port: int

    @classmethod
    def of(cls, request: Request, host: str, port: int) -> Self:
        """Return what a request of the deploy step asks to be served."""
        return cls(
            store=request.store,
            weights=request.inputs["weights"],
            run=request.inputs["run"],
            name=request.workspace.name,
            model=request.part("model", ModelRecipe),
            quantization=request.part("quantization", QuantizationRecipe),
            host=host,
            port=port,
        )


def lay_out_server(served: Served, folder: Path) -> Path:
    """Lay out base and adapter below ``folder``, and return the server's configuration.

    Raises:
        KaiflowError: they cannot be had.
    """
    store = open_store(served.store)
    folders = {"weights": folder / "weights", "adapter": folder / "adapter"}
    for part in folders.values():
        shutil.rmtree(part, ignore_errors=True)
    lay_out(store, require(store, served.weights, "base model"), folder / "image", folders["weights"])
    store.check_out(require(store, served.run, "adapter"), folders["adapter"])
    config = {
        **{name: str(path) for name, path in folders.items()},
        "model": asdict(served.model),
        "quantization": asdict(served.quantization),
        "name": served.name,
        "host": served.host,
        "port": served.port,
    }
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(config, indent=1))
    return path


def main(arguments: list[str] | None = None) -> int:
    """Lay out what the environment says; return an exit code of sysexits.h."""
    parser = argparse.ArgumentParser(prog="python -m steps.serving_files", description="Lay out a server's files.")
    parser.add_argument("--folder", type=Path, required=True, help="where to")
    folder: Path = parser.parse_args(arguments).folder
    logs.configure({"step": "serving-files"})
    try:
        lay_out_server(Served.model_validate_json(os.environ[VARIABLE]), folder)
    except KaiflowError as error:
        logs.warning("failed", reason=error.reason, message=error.message, fix=error.fix)
        say_why(f"{error.reason}: {error.message} Fix: {error.fix}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

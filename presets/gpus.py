"""Which machines have which GPUs?  One table of cards and machines, read once; names in any case."""

import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from presets.errors import ConfigError, did_you_mean

MIB = 1 << 20
VARIABLE = "KAIFLOW_GPUS"
OLDEST = (7, 0)  # compute capability that torch's and bitsandbytes' builds still serve
WITH_BF16 = (8, 0)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(_Frozen):
    """One card."""

    name: str
    capability: str
    memory_mib: PositiveInt  # as the driver shows it
    tflops: PositiveFloat  # dense bfloat16, float16 where there is no bfloat16
    bandwidth_gb_per_second: PositiveFloat

    @property
    def memory_bytes(self) -> int:
        """Memory of the card."""
        return self.memory_mib * MIB

    @property
    def level(self) -> tuple[int, int]:
        """The compute capability as numbers."""
        major, _, minor = self.capability.partition(".")
        return int(major), int(minor)

    @property
    def usable(self) -> bool:
        """Whether the libraries still run on it."""
        return self.level >= OLDEST

    @property
    def has_bf16(self) -> bool:
        """Whether it multiplies bfloat16; else the training computes in float16, its loss scaled."""
        return self.level >= WITH_BF16


class Price(_Frozen):
    """What an hour costs, as a public list said on a day."""

    usd_per_hour: PositiveFloat  # on demand, Linux
    region: str
    source: str
    date: str  # of the source; "undated" where it bears none


class Sku(_Frozen):
    """One machine type."""

    name: str
    provider: str
    gpu: Gpu
    count: PositiveInt
    price: Price | None  # None: no source at hand; never guessed


def skus(override: Path | None = None) -> dict[str, Sku]:
    """Return all machine types by name in lower case; entries of the file ``override`` come on top, or stand instead.

    Without one, those of the file that ``KAIFLOW_GPUS`` names: the commands set it for all that asks what a machine is.

    Raises:
        ConfigError: the file does not read as such a table.
    """
    file = override or (Path(named) if (named := os.environ.get(VARIABLE)) else None)
    return _bundled() if file is None else dict(_of_file(file))


@cache
def _of_file(override: Path) -> dict[str, Sku]:
    try:
        return _read(_merged(_table(), yaml.safe_load(override.read_text())))
    except (OSError, ValueError, TypeError, AttributeError, KeyError, yaml.YAMLError) as error:
        raise ConfigError(
            "GpuTableUnreadable",
            f"{override} is not a table of GPU machines: {error}",
            fix="Write it like presets/gpus.yaml.",
        ) from error


def find_sku(name: str | None, table: Mapping[str, Sku]) -> Sku | None:
    """Return the machine type of ``name``, in any case; None where none is named, or it is not in the table."""
    return table.get(name.lower()) if name else None


def unknown_sku(name: str, table: Mapping[str, Sku]) -> str:
    """Return the remedy for a name that is not in the table."""
    return did_you_mean(name, (sku.name for sku in table.values()), "Add it with a file of GPU machines.")


def _table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load((files("presets") / "gpus.yaml").read_text())
    return table


@cache
def _bundled() -> dict[str, Sku]:
    return _read(_table())


def _merged(bundled: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(own.keys() - bundled.keys())
    if unknown:
        raise ValueError(f"it has no part {unknown[0]!r}; known are {', '.join(bundled)}")
    known = {name.lower(): name for machines in bundled["skus"].values() for name in machines}
    spelt = {
        provider: {known.get(name.lower(), name): body for name, body in machines.items()}  # as the cloud spells it
        for provider, machines in own.get("skus", {}).items()
    }
    own = {**own, **({"skus": spelt} if spelt else {})}
    providers = {**bundled["skus"], **own.get("skus", {})}
    machines = {p: {**bundled["skus"].get(p, {}), **own.get("skus", {}).get(p, {})} for p in providers}
    parts = {part: {**bundled[part], **own.get(part, {})} for part in ("gpus", "sources")}
    return {**parts, "skus": machines}


def _read(table: dict[str, Any]) -> dict[str, Sku]:
    gpus = {name: Gpu.model_validate(body) for name, body in table["gpus"].items()}
    found = {}
    for provider, machines in table["skus"].items():
        for name, body in machines.items():
            price = _price(body, table["sources"])
            found[name.lower()] = Sku(
                name=name, provider=provider, gpu=gpus[body["gpu"]], count=body["count"], price=price
            )
    return found


def _price(body: dict[str, Any], sources: dict[str, Any]) -> Price | None:
    if "usd_per_hour" not in body:
        return None
    source = sources[body["source"]]
    hourly, region = body["usd_per_hour"], body["region"]
    return Price(usd_per_hour=hourly, region=region, source=source["text"], date=source["date"])

"""Which credentials does a registry get?  Read from docker's ``config.json``, as the kubelet reads it.

Every form of entry: ``auth``, ``username`` and ``password``, ``identitytoken``, ``registrytoken``; keys
that are URLs, that have a path, that are globs. The entry with the longest path wins; several files are asked in their
order. A registry's own helper (``credHelpers``) is asked first, ``credsStore`` last, as docker does. One registry's
credentials never go to another.
"""

import base64
import fnmatch
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from presets.errors import ConfigError

HELPER_SECONDS = 30
MOUNTED_CONFIG = Path("/run/kaiflow/registry/config.json")  # of the Secret that output.imagePushSecret names
PULL_SECRETS = Path("/run/kaiflow/pull")  # of those for images of rows, or of weights, one by one
DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
TOKEN_USER = "<token>"  # noqa: S105  (docker's mark for an identity token)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry is told; never printed."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""  # shown to the registry as it is

    def __repr__(self) -> str:
        return "Credentials(…)"

    @property
    def basic(self) -> str | None:
        """Return the value of a Basic header, None without user and password."""
        if not self.password:
            return None
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class DockerConfig:
    """Credentials out of one or more ``config.json`` files."""

    def __init__(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        self._bodies = list(bodies)

    @classmethod
    def read(cls, paths: Iterable[Path]) -> "DockerConfig":
        """Read the files that are there.

        Raises:
            ConfigError: one of them is not JSON.
        """
        bodies = []
        for path in paths:
            if not path.is_file():
                continue
            try:
                body = json.loads(path.read_text())
                if not isinstance(body, dict):
                    raise ValueError("no object")
            except (ValueError, OSError, RecursionError) as error:
                raise ConfigError(
                    "CredentialsInvalid",
                    f"{path} is not a docker config.",
                    fix="Make the Secret with: kubectl create secret docker-registry.",
                ) from error
            bodies.append(body if "auths" in body or path.name != ".dockercfg" else {"auths": body})
        return cls(bodies)

    def find(self, registry: str, repository: str) -> Credentials | None:
        """Return the credentials for a repository of a registry, None when there are none."""
        for body in self._bodies:
            found = _helped(body, registry) or _best_entry(_object(body, "auths"), _host(registry), repository)
            if found is not None:
                return found
        stores = (body.get("credsStore") for body in self._bodies)
        return next((found for helper in stores if (found := _ask_helper(helper, registry))), None)


def user_configs() -> list[Path]:
    """Return where docker, podman and skopeo keep the user's own credentials."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    paths = [Path(os.environ["REGISTRY_AUTH_FILE"])] if os.environ.get("REGISTRY_AUTH_FILE") else []
    paths.append(Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json")
    if runtime:
        paths.append(Path(runtime) / "containers" / "auth.json")
    return paths


def step_credentials() -> DockerConfig:
    """Return what a step may show to registries: the mounted Secrets' entries, then the user's own."""
    return DockerConfig.read([MOUNTED_CONFIG, *sorted(PULL_SECRETS.glob("*/config.json")), *user_configs()])


def _object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = body.get(key)
    return found if isinstance(found, Mapping) else {}


def _helped(body: Mapping[str, Any], registry: str) -> Credentials | None:
    """Ask the helper that is named for this registry: it stands above what an earlier login has left in ``auths``."""
    helpers = {_split_key(key)[0]: helper for key, helper in _object(body, "credHelpers").items()}
    return _ask_helper(helpers.get(_host(registry)), registry)


def _best_entry(entries: Mapping[str, Any], host: str, repository: str) -> Credentials | None:
    best: tuple[int, Credentials] | None = None
    for key, entry in entries.items():
        entry_host, path = _split_key(key)
        if not _host_matches(entry_host, host) or (path and not f"{repository}/".startswith(f"{path}/")):
            continue
        credentials = _from_entry(entry) if isinstance(entry, Mapping) else None
        if credentials is not None and (best is None or len(path) > best[0]):
            best = (len(path), credentials)
    return best[1] if best else None


def _split_key(key: str) -> tuple[str, str]:
    """``https://index.docker.io/v1/`` is docker.io, ``ghcr.io/team`` the path team of ghcr.io."""
    host, _, path = re.sub(r"^https?://", "", key).rstrip("/").partition("/")
    return _host(host), re.sub(r"^v[12](/|$)", "", path)


def _host(registry: str) -> str:
    return "docker.io" if registry in DOCKER_HUB else registry


def _host_matches(pattern: str, host: str) -> bool:
    parts, labels = pattern.split("."), host.split(".")
    return len(parts) == len(labels) and all(map(fnmatch.fnmatchcase, labels, parts))


def _from_entry(entry: Mapping[str, Any]) -> Credentials | None:
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            decoded = base64.b64decode(str(entry["auth"]), validate=False).decode()
        except ValueError:  # no base64, or no text in it
            return None
        user, _, password = decoded.rstrip("\0").partition(":")
    identity, bearer = str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
    return Credentials(user, password, identity, bearer) if password or identity or bearer else None


def _ask_helper(helper: object, registry: str) -> Credentials | None:
    if not isinstance(helper, str) or not re.fullmatch(r"[\w.-]+", helper):
        return None
    server = "https://index.docker.io/v1/" if _host(registry) == "docker.io" else registry
    try:
        answer = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=server, capture_output=True, text=True, timeout=HELPER_SECONDS
        )
        body = json.loads(answer.stdout) if answer.returncode == 0 else {}
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    user, secret = (body.get(key) if isinstance(body, dict) else None for key in ("Username", "Secret"))
    if not isinstance(user, str) or not isinstance(secret, str) or not secret:
        return None
    return Credentials(identity_token=secret) if user == TOKEN_USER else Credentials(user, secret)

"""The Workspaces that were run on this machine, as the commands ask for them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from controller.chat import ask
from controller.following import follow_logs
from controller.state import StateFolder, all_folders, find_folder, state_root
from controller.stopping import stop
from presets.errors import UnavailableError

Workspace = dict[str, Any]


class LocalPlace:
    """One state folder."""

    def __init__(self, state_dir: Path | None, namespace: str | None) -> None:
        self._root = state_root(state_dir)
        self._namespace = namespace

    @property
    def words(self) -> str:
        """What it is called."""
        return str(self._root.parent)

    def _folder(self, name: str) -> StateFolder:
        """Return the folder; where no namespace is named, that of the only Workspace of this name."""
        if self._namespace is None:
            places = [folder.namespace for folder in all_folders(self._root, None) if folder.name == name]
            if len(places) == 1:
                return find_folder(self._root, places[0], name)
        return find_folder(self._root, self._namespace or "default", name)

    def workspaces(self, labels: Mapping[str, str], *, everywhere: bool) -> list[Workspace]:
        """Return the Workspaces with the labels, of all namespaces where none was named."""
        folders = all_folders(self._root, None if everywhere else self._namespace)
        found = [folder.read() for folder in folders]
        return [body for body in found if labels.items() <= (body["metadata"].get("labels") or {}).items()]

    def read(self, name: str) -> Workspace:
        """Return a Workspace with the status that is true now."""
        return self._folder(name).read()

    def logs(self, name: str, step: str | None, *, follow: bool, tail: int | None) -> None:
        """Print the logs, of each the last ``tail`` lines."""
        follow_logs(self._folder(name), step, follow=follow, tail=tail)

    def ask(self, name: str, prompt: str, model: str | None) -> Iterator[str]:
        """Yield the answer in pieces.

        Raises:
            UnavailableError: nothing serves.
        """
        endpoint = self.read(name).get("status", {}).get("endpoint")
        if not endpoint:
            raise UnavailableError("NotServing", f"{name} is not served now.", fix="Run its file (again).")
        return ask(endpoint, prompt, model)

    def stop(self, name: str) -> list[str]:
        """Stop run and server; return what was stopped, in words."""
        return stop(self._folder(name))

    def delete(self, name: str) -> None:
        """Stop the Workspace and remove its folder."""
        folder = self._folder(name)
        stop(folder)
        folder.delete()

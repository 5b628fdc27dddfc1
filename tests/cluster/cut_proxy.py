"""A TCP proxy before the API server: connections cut, the server gone for a while.  Faults for tests, nothing else."""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml


class CutProxy:
    """Forwards to an address; :meth:`cut` ends what is open, :meth:`refuse` takes nothing new."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._refusing = False
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every open connection."""
        with self._lock:
            for half in list(self._open):
                with suppress(OSError):
                    half.shutdown(socket.SHUT_RDWR)

    def refuse(self, refusing: bool) -> None:
        """Take no connections, or take them again."""
        self._refusing = refusing
        if refusing:
            self.cut()

    def close(self) -> None:
        """End it all."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for half in (source, sink):
            with suppress(OSError):
                half.shutdown(socket.SHUT_RDWR)
            half.close()
        with self._lock:
            self._open -= {source, sink}


def proxied_kubeconfig(folder: Path) -> tuple[CutProxy, Path]:
    """Return a proxy before the API server of KUBECONFIG, and a kubeconfig that leads through it."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    proxy = CutProxy(server.hostname or "127.0.0.1", server.port or 443)
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return proxy, path

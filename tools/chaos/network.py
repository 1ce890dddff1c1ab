"""A network for the broker and the TaskManagers on this machine, whose cables can be pulled.

Each has a network namespace, connected to a bridge at which the JobManager and this process are. That takes Linux, its
`ip` command and root.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tools.stack.processes import Place


def is_possible() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("ip") is not None


class Network:
    """A bridge, and a namespace at it for each of the names; all are gone after `remove`."""

    def __init__(self, *names: str):
        self._prefix = f"chaos{os.getpid()}"  # names of interfaces have at most 15 characters
        self._subnet = f"10.{random.randint(64, 254)}.{random.randint(0, 254)}"
        self._bridge = f"{self._prefix}br"
        self.address = f"{self._subnet}.1"
        self._names = names

    def create(self) -> None:
        """Raises RuntimeError with what `ip` says if the kernel does not let it."""
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for name in self._names:
            namespace, cable = self._namespace(name), self._cable(name)
            _ip("netns", "add", namespace)
            _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", cable, "master", self._bridge)
            _ip("-n", namespace, "addr", "add", f"{self.place(name).host}/24", "dev", "eth0")
            for interface in ("lo", "eth0"):
                _ip("-n", namespace, "link", "set", interface, "up")
            _ip("link", "set", cable, "up")

    def remove(self) -> None:
        namespaces, links = _ip("netns", "list"), _ip("-brief", "link", "show")
        # Cables too: a namespace lives on, and keeps its end, while the kernel has a connection of a killed process.
        for link in (*map(self._cable, self._names), self._bridge):
            if link in links:
                _ip("link", "delete", link)
        for name in self._names:
            if self._namespace(name) in namespaces:
                _ip("netns", "delete", self._namespace(name))

    def place(self, name: str) -> Place:
        host = f"{self._subnet}.{2 + self._names.index(name)}"
        return Place(host, ("ip", "netns", "exec", self._namespace(name)))

    @contextmanager
    def cut(self, name: str) -> Iterator[None]:
        """Without the cable of a namespace, packets in both directions are lost, and nobody is told."""
        _ip("link", "set", self._cable(name), "down")
        try:
            yield
        finally:
            _ip("link", "set", self._cable(name), "up")

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _cable(self, name: str) -> str:
        return f"{self._prefix}v{self._names.index(name)}"


def _ip(*arguments: str) -> str:
    ran = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {ran.stderr.strip()}")
    return ran.stdout

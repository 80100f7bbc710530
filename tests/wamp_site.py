"""A node with a home of its own, and whoever joins there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.cloud.config import HOST
from components.cloud.sqlite_audit import AuditLog
from components.cloud.sqlite_registry import Registry
from components.console.home import Home, make_home
from components.console.node import Node, free_port, write_node
from components.keyfile import KeyFile, make_key
from tests.wamp_peer import Peer


@dataclass(frozen=True)
class Site:
    home: Home
    node: Node

    def add(self, name: str, role: str, **more: Any) -> KeyFile:  # noqa: ANN401 - as the registry's
        """Add a device, an operator or a persister; return its key."""
        key = make_key(name, role)
        with self.registry() as registry:
            if role == "device":
                registry.add_device(name, key.public_key, 1, **more)
            else:
                registry.add_principal(name, key.public_key, role, 1, **more)  # type: ignore[arg-type]
        return key

    def registry(self) -> Registry:
        """Open the registry to write."""
        return Registry.open(self.home.registry, write=True)

    def peer(self, key: KeyFile) -> Peer:
        """Return a peer that joins where its kind joins."""
        urls = self.node.urls
        return Peer(urls.persisters if key.role == "persister" else urls.devices, key)

    @property
    def port(self) -> int:
        """The port at which devices and operators join."""
        return int(self.node.urls.devices.removesuffix("/ws").rpartition(":")[2])

    def noted(self, action: str) -> list[tuple[str, dict[str, object]]]:
        """Return whom the router's audit log names with this action, and what more it says; oldest first."""
        with AuditLog.open(self.home.router_audit) as log:
            return [(one.subject, {"by": one.by, **one.detail}) for one in log.entries() if one.action == action]


@contextmanager
def running_site(base: Path) -> Iterator[Site]:
    """Make a home in `base` and run a node for it; no persister runs."""
    ws_port, rs_port = free_port(), free_port()
    home = make_home(base / "var", 1, router_url=f"rs://{HOST}:{rs_port}")
    urls = write_node(base / "node", home.path, ws_port, rs_port)
    with Node(base / "node", urls) as node:
        yield Site(home, node)

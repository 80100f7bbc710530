"""A server's home: the directory that `odograph init` makes and every server-side command works in."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from components.cloud.certificates import Tls
from components.cloud.config import ARCHIVE_URI, FEED_URI, PERSISTER_URL, server_toml
from components.cloud.keys import make_server_keys
from components.cloud.sqlite_audit import router_audit
from components.cloud.sqlite_registry import Registry
from components.keyfile import make_key, write_key_file
from components.wire import bundle
from components.wire.errors import ConfigError

home_option: Final = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var"),
    show_default=True,
    help="The server's home.",
)
"""Of every command that works in one."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where everything lies in a server's home."""

    path: Path

    @property
    def registry(self) -> Path:
        """Devices, operators, persisters: public keys only."""
        return self.path / "registry.db"

    @property
    def router_audit(self) -> Path:
        """What the router refused and saw; the router makes it."""
        return router_audit(self.registry)

    @property
    def keys(self) -> Path:
        """Directory of the server's private keys."""
        return self.path / "keys"

    @property
    def persister_key(self) -> Path:
        """KEYFILE with which persisters join."""
        return self.keys / "persister.key"

    @property
    def admin_key(self) -> Path:
        """KEYFILE of the first operator."""
        return self.path / "operators" / "admin.key"

    @property
    def tls(self) -> Tls:
        """CA and certificate of the router, where there are any."""
        return Tls(self.path / "tls")

    @property
    def config(self) -> Path:
        """What `odograph persist --config` takes."""
        return self.path / "server.toml"

    @property
    def bundle(self) -> Path:
        """What goes to the devices."""
        return self.path / "server.pub.json"


def make_home(
    path: Path, now_ms: int, *, router_url: str = PERSISTER_URL, archive: str = ARCHIVE_URI, feed: str = FEED_URI
) -> Home:
    """Make a server's home, whole or not at all: it is built beside `path` and moved there.

    Args:
        path: Must not exist, or be an empty directory.
        now_ms: ms UTC, for the registry.
        router_url: Where persisters join.
        archive: URI of the archive, as in server.toml.
        feed: URI of the feed, as in server.toml.

    Raises:
        ConfigError: `path` has something in it, or cannot be made; nothing was changed.
    """
    path = path.absolute()
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ConfigError(f"{path} is there already", "choose another --home; nothing was changed")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Home(Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)))
        try:
            _fill(draft, now_ms, server_toml(router_url=router_url, archive=archive, feed=feed))
            os.replace(draft.path, path)  # noqa: PTH105 - onto an empty directory, which is rename's own rule
        except BaseException:
            shutil.rmtree(draft.path, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be made", error.strerror or str(error)) from error
    return Home(path)


def _fill(home: Home, now_ms: int, config: str) -> None:
    keys = make_server_keys(home.keys, now_ms)
    home.admin_key.parent.mkdir(mode=0o700)
    home.router_audit.parent.mkdir(mode=0o700)
    with Registry.create(home.registry) as registry:
        for file, authid in ((home.admin_key, "admin"), (home.persister_key, "persister")):
            key = make_key(authid, authid)
            write_key_file(file, key)
            registry.add_principal(authid, key.public_key, "admin" if authid == "admin" else "persister", now_ms)
    home.bundle.write_text(bundle.dump(keys.newest), "utf-8")
    home.config.write_text(config, "utf-8")

"""server.toml: what a persister and the server-side commands must know, as frozen dataclasses; and its first text."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from components import settings
from components.keyfile import refuse_open_file
from components.metrics import Metrics
from components.settings import checked, without_password

HOST: Final = "127.0.0.1"
DEVICE_URL: Final = f"ws://{HOST}:8080/ws"
PERSISTER_URL: Final = f"rs://{HOST}:8081"
ARCHIVE_FORMS: Final = "sqlite:PATH or mongodb://HOST/DATABASE"
FEED_FORMS: Final = "sqlite:PATH or kafka://HOST:PORT[,HOST:PORT]"
ARCHIVE_URI: Final = "sqlite:archive.db"
FEED_URI: Final = "sqlite:feed.db"

_SQLITE: Final = "sqlite:"
_SHARDS: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{2})")


def _is_range(text: str) -> bool:
    match = _SHARDS.fullmatch(text)
    return match is not None and match[1] <= match[2]


def _is_url(text: str) -> bool:
    return settings.is_url(text, "ws", "wss", "rs", "rss")


def is_archive_uri(text: str) -> bool:
    """Whether it has one of the forms ARCHIVE_FORMS."""
    return re.fullmatch(r"sqlite:[^\0]+|mongodb(\+srv)?://[^/]+/[^/?]+(\?.*)?", text) is not None


def is_feed_uri(text: str) -> bool:
    """Whether it has one of the forms FEED_FORMS."""
    return re.fullmatch(r"sqlite:[^\0]+|kafka://[^/,\s]+:[0-9]+(,[^/,\s?]+:[0-9]+)*(\?.*)?", text) is not None


@dataclass(frozen=True, slots=True)
class Router:
    """`[router]`: where the persister joins; `ca` has the only CAs whose certificate the router may show."""

    url: str = checked("be like rs://127.0.0.1:8081 or ws://127.0.0.1:8080/ws", _is_url, PERSISTER_URL)
    ca: Path | None = None

    def __post_init__(self) -> None:
        if self.ca is not None and not self.url.startswith(("wss://", "rss://")):
            raise ValueError("ca: must be left out where url does not begin with wss:// or rss://")


@dataclass(frozen=True, slots=True)
class Intake:
    """`[intake]`: which devices' packets this persister takes, as a closed range of shards."""

    shards: str = checked('be like "00-ff"', _is_range, "00-ff")

    def shard_ids(self) -> list[str]:
        """Every shard of the range, as two hex digits, in order; at least one."""
        first, last = (int(end, 16) for end in self.shards.split("-"))
        return [f"{number:02x}" for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Archive:
    """`[archive]`: where packets are kept."""

    uri: str = checked(
        f"be {ARCHIVE_FORMS}",
        is_archive_uri,
        ARCHIVE_URI,
    )


@dataclass(frozen=True, slots=True)
class Feed:
    """`[feed]`: where events are announced."""

    uri: str = checked(
        f"be {FEED_FORMS}",
        is_feed_uri,
        FEED_URI,
    )


@dataclass(frozen=True, slots=True)
class RegistryFile:
    """`[registry]`: registry.db, absolute."""

    path: Path


@dataclass(frozen=True, slots=True)
class Keys:
    """`[keys]`: the directory of the server's keys, absolute; the persister's own key file is in it."""

    dir: Path

    @property
    def persister(self) -> Path:
        """The persister's KEYFILE."""
        return self.dir / "persister.key"


@dataclass(frozen=True, slots=True)
class Server:
    """A whole server.toml. `archive.uri` and `feed.uri` of the form sqlite:PATH are absolute here."""

    router: Router
    intake: Intake
    archive: Archive
    feed: Feed
    registry: RegistryFile
    keys: Keys
    metrics: Metrics = field(default_factory=Metrics)


def read_server(path: Path) -> Server:
    """Read server.toml; relative paths in it stand beside the file.

    Raises:
        ConfigError: It has faults, all of which are listed; or a password, and others may read it.
    """
    server = settings.read(path.absolute(), Server)
    if any(without_password(uri) != uri for uri in (server.archive.uri, server.feed.uri)):
        # A password makes it a file of secrets.
        refuse_open_file(path)
    base = path.absolute().parent
    return replace(
        server,
        archive=Archive(_beside(base, server.archive.uri)),
        feed=Feed(_beside(base, server.feed.uri)),
    )


def server_toml(*, router_url: str = PERSISTER_URL, archive: str = ARCHIVE_URI, feed: str = FEED_URI) -> str:
    """Return the text of a new server.toml."""
    return f"""\
# odograph, server side. Relative paths stand beside this file.

[router]
url = "{router_url}"        # where the persister joins

[intake]
shards = "00-ff"                    # the devices whose packets this persister takes; several persisters may overlap

[archive]
uri = "{archive}"          # or mongodb://HOST/DATABASE

[feed]
uri = "{feed}"             # or kafka://HOST:PORT

[registry]
path = "registry.db"                # devices, operators and their public keys; `odograph device`, `odograph operator`

[keys]
dir = "keys"                        # the server's private keys; keep a copy in a safe place
"""


def _beside(base: Path, uri: str) -> str:
    return f"{_SQLITE}{base / uri.removeprefix(_SQLITE)}" if uri.startswith(_SQLITE) else uri

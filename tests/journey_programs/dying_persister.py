"""A persister that dies by SIGKILL right after its archive has stored a batch: before any receipt of it.

python dying_persister.py SERVER_TOML
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.cloud import service, stores
from components.cloud.ports import Outcome, StoredPacket
from components.console.__main__ import run

_open_archive = stores.open_archive


def open_dying(uri: str, base: Path) -> Any:  # noqa: ANN401 - an Archive whose class depends on the URI
    archive: Any = _open_archive(uri, base)
    insert = archive.insert

    def insert_and_die(packets: Sequence[StoredPacket]) -> list[Outcome]:
        insert(packets)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    archive.insert = insert_and_die
    return archive


if __name__ == "__main__":
    vars(service)["open_archive"] = open_dying
    sys.exit(run(["persist", "--config", sys.argv[1]]))

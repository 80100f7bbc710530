"""How every small file that people or servers hand over is read: whole, regular, bounded. Rim.

Not for databases (`sqlite_file`), nor for what odograph writes for itself alone.
"""

import os
import stat
from pathlib import Path

from components.wire.errors import ConfigError


def read_bytes(path: Path, most: int, hint: str = "") -> bytes:
    """Return the bytes of a regular file of at most `most` bytes; never waits for a pipe or a device.

    Args:
        path: The file; a link to one is as good.
        most: Bytes.
        hint: What to do where it cannot be read, in one clause.

    Raises:
        ConfigError: It is missing, no regular file, larger, or may not be read.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a number
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(most + 1) if is_file else b""
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", hint) from None
    except IsADirectoryError:
        is_file, data = False, b""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", hint) from error
    if not is_file:
        raise ConfigError(f"{path} is not a file", hint)
    if len(data) > most:
        raise ConfigError(f"{path} has more than {most} bytes", hint)
    return data


def read_text(path: Path, most: int, hint: str = "") -> str:
    """Return the text of a UTF-8 file; see `read_bytes`."""
    try:
        return read_bytes(path, most, hint).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})", hint) from error

"""The spool's SQLite files: opened, checked, and set aside when broken, for recording must go on. Rim.

What a writer meets, when it opens its file or later, is one of three things. `corrupt`: whatever stands there is set
aside as `<name>.corrupt-<n>`, be it broken, of another program, of a later version or no file at all, and a new one is
in its place before the call that met it fails. `full`: the card has no room. Anything else is raised as it came. What
cannot be read or written is the file's fault where another file can be written beside it, and the card's where not.

No page is checked when a file is opened, only its tables' form: `quick_check` reads all of it, half a minute for 1 GB
on an SD card, and recording would wait. `is_sound` does it beside the writer.
"""

import errno
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from components.sqlite_file import BUSY_S, WriterLock, connect_reader, open_private, transaction
from components.wire.errors import OperatorError, UnavailableError

VERSION: Final = 2
Fault = Literal["corrupt", "full"]
_MAGIC: Final = b"SQLite format 3\0"
_PROBE_BYTES: Final = 65536
_WAL_BYTES: Final = 1 << 20
"""The log is written back at this length. Longer ones save nothing, as rows are only ever appended."""
_READER_MS: Final = 100
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BROKEN: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNUSABLE: Final = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
_BESIDE: Final = ("-wal", "-shm", "-journal")


class SpoolFaultError(UnavailableError):
    """A file of the spool could not be used; `kind` says why. Where it was corrupt a new one is there already."""

    def __init__(self, path: Path, kind: Fault, error: BaseException) -> None:
        super().__init__(f"{path}: {error}")
        self.path, self.kind = path, kind


class SpoolFile:
    """A file and its one writer's connection: WAL, every commit on the card before it returns.

    Args:
        path: The file; its directory exists.
        schema: SQL that makes the tables, statements separated by semicolons.
        upgrades: By version of the file, SQL that makes of its tables those of the next version.
        page_bytes: Of a new file.

    Attributes:
        path: As given.
        is_new: Whether there was nothing in its place when it was opened last.
        quarantined: The file that was set aside last; None when there was none.
        trouble: Why it was, in words.
        on_fault: Called with each fault, in the thread that met it.

    Raises:
        OperatorError: No file can be opened or made there: it is the card.
    """

    def __init__(self, path: Path, schema: str, upgrades: Mapping[int, str], page_bytes: int) -> None:
        self.path, self._schema, self._upgrades, self._page_bytes = path, schema, upgrades, page_bytes
        self.is_new = False
        self.quarantined: Path | None = None
        self.trouble = ""
        self.on_fault: Callable[[Fault], object] = _nobody
        self._connection: sqlite3.Connection
        self._fd: int
        self._is_open = False
        try:
            try:
                self._open()
            except sqlite3.Error as error:
                if fault(error, path.parent) != "corrupt":
                    raise
                self.renew(str(error))
        except (OSError, sqlite3.Error) as error:
            raise OperatorError(
                f"{path} cannot be opened ({error})", "check the card, its rights and its room"
            ) from error

    def renew(self, why: str) -> None:
        """Set the file aside, and begin a new one in its place; `why` in words."""
        self.close()
        self.quarantined, self.trouble = _set_aside(self.path), why
        self._open()

    def give_back(self, max_bytes: int, spare_bytes: int) -> bool:
        """Give at most `max_bytes` of free pages back to the card; return whether more than `spare_bytes` are left.

        Free pages are used by later rows; to give them back costs writing as much again.
        """
        with self._guarded() as db:
            page = int(db.execute("PRAGMA page_size").fetchone()[0])
            pages = max_bytes // page
            free = int(db.execute("PRAGMA freelist_count").fetchone()[0]) - spare_bytes // page
            if free > 0:
                # Through execute() it would free one page only.
                db.executescript(f"PRAGMA incremental_vacuum({min(free, pages)})")
            # Files shrink when the log is written back. Not for long would this wait for a reader's sake.
            db.execute(f"PRAGMA busy_timeout = {_READER_MS}")
            try:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                db.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")
        return free > pages

    def close(self) -> None:
        """Let go of the file."""
        if self._is_open:
            self._is_open = False
            # A broken file may refuse even that.
            with suppress(sqlite3.Error):
                self._connection.close()
            os.close(self._fd)

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """Give the connection; deal with what its file does to the block."""
        try:
            if not self._is_open:
                self._open()
            self._check_is_there()
            yield self._connection
        except sqlite3.Error as error:
            kind = fault(error, self.path.parent)
            if kind is None and self._is_open and not has_form(self._connection, self._schema):
                kind = "corrupt"
            if kind is None:
                raise
            try:
                if kind == "corrupt":
                    self.renew(str(error))
            finally:
                self.on_fault(kind)
            raise SpoolFaultError(self.path, kind, error) from error

    def _check_is_there(self) -> None:
        """Look at the file itself: SQLite would go on for long with what it remembers of it, and with its log."""
        try:
            is_ours = os.path.samestat(os.fstat(self._fd), self.path.stat()) and os.pread(self._fd, 16, 0) == _MAGIC
        except OSError:
            is_ours = False
        if not is_ours:
            raise not_ours("it was changed by another hand, or is gone")

    def _open(self) -> None:
        connection, self._fd = _opened(self.path)
        try:
            self.is_new = _prepare(_tolerant(connection), self._schema, self._upgrades, self._page_bytes)
            self._connection, self._is_open = connection, True
            self._begin()
        except BaseException:
            self._is_open = False
            connection.close()
            os.close(self._fd)
            raise

    def _begin(self) -> None:
        """Take from the file what a user of it remembers; called whenever it was opened. `not_ours` may be raised."""


def not_ours(words: str) -> sqlite3.DatabaseError:
    """Return the error to raise of a file in which stands what no odograph wrote: it is set aside."""
    error = sqlite3.DatabaseError(words)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def fault(error: sqlite3.Error, directory: Path) -> Fault | None:
    """Return what is wrong with the file that the error is of; None when it is nothing of this kind."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BROKEN:
        return "corrupt"
    if code == sqlite3.SQLITE_FULL:
        return "full"
    return _card(directory) if code in _UNUSABLE else None


def has_form(connection: sqlite3.Connection, schema: str) -> bool:
    """Tell whether the tables are those of the schema still: where not, somebody changed them under a statement.

    Where that cannot be told, as the file is locked, they are.
    """
    try:
        _check_form(connection, schema)
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF not in {*_BROKEN, sqlite3.SQLITE_ERROR}
    return True


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a file beside its writer or after it; nothing can be written through this. OperatorError when it cannot."""
    return _tolerant(connect_reader(path, VERSION))


def is_sound(path: Path) -> bool:
    """Read all of a file beside its writer, and tell whether its pages hang together; rows have their checksums."""
    try:
        with closing(open_reader(path)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except (sqlite3.Error, OperatorError) as error:
        cause = error if isinstance(error, sqlite3.Error) else error.__cause__
        return not (isinstance(cause, sqlite3.Error) and fault(cause, path.parent) == "corrupt")


def set_aside_files(directory: Path) -> list[Path]:
    """Return the files that were set aside, with their logs, oldest first."""
    return sorted(directory.glob("*.corrupt-*"), key=lambda path: path.lstat().st_mtime)


def forget_set_aside(path: Path) -> None:
    """Delete a file that was set aside, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def written_ms(path: Path) -> int:
    """Return when a file or its log was last written, ms UTC by the machine's clock of then; 0 when it is gone."""
    times = [0]
    for file in (path, path.with_name(path.name + "-wal")):
        with suppress(OSError):
            times.append(file.stat().st_mtime_ns // 1_000_000)
    return max(times)


def used_bytes(directory: Path) -> int:
    """Return how much of the card the spool takes, logs and files set aside included."""
    sizes = []
    for path in directory.iterdir():
        # A log may go while we look.
        with suppress(OSError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def lock(directory: Path) -> WriterLock:
    """Take the spool for this process, until it ends or releases it; OperatorError when another process has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OperatorError(f"{directory} cannot be used as spool", str(error)) from error
    return WriterLock(directory / "spool", "stop the agent that runs there, or give [spool] dir another")


class Ballast:
    """Room that is kept for the hour when the card is full: to delete rows takes some, for the log.

    Args:
        path: Of the file that holds the room.
        size: Bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size

    def take(self) -> None:
        """Take room, as far as the card has it."""
        try:
            with self._path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError:
            self.drop()

    def drop(self) -> bool:
        """Let go of the room; return whether there was any."""
        with suppress(OSError):
            self._path.unlink()
            return True
        return False


def _nobody(_fault: Fault) -> None:
    """Nobody wants to hear of faults."""


def _card(directory: Path) -> Fault | None:
    """Tell an I/O error's cause by writing another file: `corrupt` when that goes well."""
    probe = directory / "probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return "full" if error.errno in _NO_ROOM else None
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return "corrupt"


def _tolerant(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Let text come out whatever its bytes are: a flipped bit is for the row's checksum to tell, not for UTF-8."""
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def _opened(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open a file, or make it; return the connection, and a descriptor that tells whether it is still the same."""
    try:
        connection = open_private(path)
        # Closed only after the connection: to close any descriptor of a file is to lose SQLite's locks on it.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        unusable = sqlite3.OperationalError(str(error))
        unusable.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise unusable from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        connection.close()
        os.close(fd)
        raise not_ours("it is no file")
    return connection, fd


def _prepare(connection: sqlite3.Connection, schema: str, upgrades: Mapping[int, str], page_bytes: int) -> bool:
    """Make the tables those of this version, or make them; return whether there were none."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    is_new: bool = found == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not is_new and not 0 < found <= VERSION:
        raise not_ours(
            f"it has version {found}, this odograph writes {VERSION}" if found else "it is another program's"
        )
    if is_new:
        connection.execute(f"PRAGMA page_size = {page_bytes}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Tells this file from the one that stood here before it, whose row numbers mean something else.
        connection.execute(f"PRAGMA application_id = {int.from_bytes(os.urandom(4), 'big', signed=True)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # Debian's SQLite writes zeros over what is deleted; on flash that hides nothing, and wears it twice.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_BYTES // page_bytes}")
    connection.execute(f"PRAGMA journal_size_limit = {2 * _WAL_BYTES}")
    try:
        if found != VERSION:
            steps = [schema] if is_new else [upgrades[version] for version in range(found, VERSION)]
            with transaction(connection):
                for statement in ";".join(steps).split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
        _check_form(connection, schema)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
            # A table or a column that is missing, or there already.
            raise not_ours(str(error)) from error
        raise
    return is_new


def _check_form(connection: sqlite3.Connection, schema: str) -> None:
    """Raise `not_ours` where the tables are not those of the schema, or somebody's trigger or view changes them."""
    with closing(sqlite3.connect(":memory:")) as made:
        made.executescript(schema)
        ours = _columns(made)
    theirs = _columns(connection)
    (foreign,) = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view')").fetchone()
    if foreign or not all(_are_alike(theirs.get(table, []), columns) for table, columns in ours.items()):
        raise not_ours("its tables are not those of this odograph")


def _columns(connection: sqlite3.Connection) -> dict[str, list[tuple[str, int, str]]]:
    """Return the columns of each table: name, whether its table holds it to its type, and the type."""
    tables: dict[str, list[tuple[str, int, str]]] = {}
    for table, *column in connection.execute(
        "SELECT tables.name, columns.name, strict, columns.type FROM pragma_table_list AS tables, "
        "pragma_table_info(tables.name) AS columns WHERE tables.schema = 'main' ORDER BY cid"
    ):
        tables.setdefault(table, []).append((column[0], column[1], column[2]))
    return tables


def _are_alike(theirs: list[tuple[str, int, str]], ours: list[tuple[str, int, str]]) -> bool:
    """Tell whether columns are as ours; where we take any type, an earlier version took one."""
    return len(theirs) == len(ours) and all(
        found[:2] == wanted[:2] and wanted[2] in {found[2], "ANY"} for found, wanted in zip(theirs, ours, strict=True)
    )


def _set_aside(path: Path) -> Path:
    n = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.corrupt-{n}")):
        n += 1
    for suffix in (*_BESIDE, ""):
        # Its logs first: a new file must never find them.
        beside = path.with_name(path.name + suffix)
        if os.path.lexists(beside):
            beside.rename(aside.with_name(aside.name + suffix))
    return aside

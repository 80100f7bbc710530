"""The spool of one agent: packets made of its rows, old things forgotten, losses declared, broken files replaced. Rim.

readings.db is written in one lane and outbox.db in another; this moves between them what concerns both. What to
forget is decided by `retention`; what is corrupt or full is found by `sqlite_spool`.
"""

from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from components.edge import errand, sqlite_spool
from components.edge.compactor import Compactor, Sealer
from components.edge.retention import Step, Tidying
from components.edge.sqlite_outbox import SqliteOutbox, Waiting
from components.edge.sqlite_readings import ReadingsReader, ReadingsWriter
from components.edge.sqlite_spool import Ballast, Fault, SpoolFaultError
from components.lane import Lane
from components.wire.packet import lost_form

_BALLAST_BYTES: Final = 2_000_000
_PACKETS_AT_ONCE: Final = 200
_UNSENT_AT_ONCE: Final = 20
"""Fewer: none is to go that needs not."""
_MINUTES_AT_ONCE: Final = 20
_ROWS_AT_ONCE: Final = 2000
_GIVEN_UP_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 1 << 19
_UNSOUND: Final = "its pages do not hang together"
_SPARE_BYTES: Final = 1 << 20
"""What a file keeps free: room for half an hour of rows, written without growing it and shrinking it again."""


class Owner(Protocol):
    """Whose spool it is: the agent. Called in the reactor's thread."""

    def moment(self) -> tuple[str, int]:
        """Return session and time (ms UTC) of what is recorded now."""

    def begin_session(self) -> None:
        """The rows of the session so far are not in the readings file that is there now."""

    def ran_ms(self) -> int:
        """Return for how long agents ran."""

    def kept(self, packets: list[Waiting], *, fresh: bool) -> None:
        """Packets wait: `fresh` ones just made, others found."""

    def begin_outbox(self) -> None:
        """The packets so far are not in the outbox that is there now."""

    def tell(self, name: str, what: dict[str, object]) -> None:
        """Tell operators that something happened."""


class Spool:
    """The two files, and the lanes that they are used in.

    Args:
        reactor: Where faults that a lane met are dealt with.
        directory: It is this process's (`sqlite_spool.lock`).
        keep_ms: How long settled packets and their rows stay, in time that agents ran.
        max_bytes: How much of the card all of it may take.
        device, sealer: Whose packets are made, and for whom.

    Raises:
        OperatorError: A file cannot be opened.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - a reactor is many interfaces
        directory: Path,
        keep_ms: int,
        max_bytes: int,
        device: str,
        sealer: Sealer,
    ) -> None:
        self._reactor, self._directory = reactor, directory
        self._keep_ms, self._max_bytes = keep_ms, max_bytes
        self._ballast = Ballast(directory / "ballast", _BALLAST_BYTES)
        # To open files on a full card takes room, too.
        self._was_used = self._ballast.drop()
        self.file_lane, self.outbox_lane, self._check_lane = (Lane(reactor, n) for n in ("readings", "outbox", "check"))
        self.writer = ReadingsWriter(directory / "readings.db")
        self.outbox = SqliteOutbox(directory / "outbox.db")
        self._reader = ReadingsReader(directory / "readings.db")
        self._compactor = Compactor(device, self._reader, self.outbox, sealer)
        self.lost: dict[str, int] = {}
        """How many ranges were declared lost, by reason."""
        self._owner: Owner
        self._tidying: Deferred[None] | None = None
        self._is_settled = False
        self._log = Logger()
        self._detach = partial(errand.detach, self._log)

    def start(self, owner: Owner) -> None:
        """Take up what an earlier run left behind."""
        self._owner = owner
        for lane in (self.file_lane, self.outbox_lane, self._check_lane):
            lane.start()
        for file in (self.writer, self.outbox):
            if file.quarantined is not None:
                self._say_set_aside(file)
            file.on_fault = partial(self._reactor.callFromThread, self._met, file)
        self._detach(self._take_up_the_last_run, "outbox not taken up")
        self._detach(self._check, "the files were not checked")

    async def compact(self, *, closing: bool = False, ended: str = "") -> None:
        """Make packets of all closed periods; `closing`: of the one in hand as well, `ended`: if of that session."""
        if closing and self._tidying is not None:
            # The last packet may need the room that is being made.
            await self._tidying
        before = await self.outbox_lane.run(self.outbox.next_seq)
        epoch = self.outbox.epoch
        try:
            await self.outbox_lane.run(self._compactor.compact, closing=closing, ended=ended)
        except SpoolFaultError as error:
            if error.path == self.writer.path:
                await self._replace_readings()
            raise
        finally:
            if self.outbox.epoch == epoch:
                # What was made before it failed is kept, and wants to be sent: at once where nothing comes after it.
                self._owner.kept(await self.outbox_lane.run(self.outbox.waiting, before - 1), fresh=not ended)
        await self._declare()

    def remake(self, seq: int) -> str | None:
        """Seal a packet again; see Compactor. Blocking: in the outbox's lane."""
        try:
            return self._compactor.remake(seq)
        except SpoolFaultError as error:
            if error.path == self.writer.path:
                self._reactor.callFromThread(self._detach, self._replace_readings, "readings were not replaced")
            raise

    async def tidy(self, *, is_full: bool = False) -> None:
        """Forget what is old, and what there is no room for; does nothing while that, or a repair, is under way."""
        if not self._is_settled or (self._tidying is not None and not self._tidying.called):
            return
        self._tidying = ensureDeferred(self._tidy(is_full))
        await self._tidying

    def is_over(self) -> bool:
        """Whether the spool is over its bound."""
        return sqlite_spool.used_bytes(self._directory) > self._max_bytes

    async def end(self) -> None:
        """Return when all that was begun has ended; `close` comes next."""
        if self._tidying is not None:
            await self._tidying
        for lane in (self._check_lane, self.outbox_lane, self.file_lane):
            await lane.close()

    def close(self) -> None:
        """Let go of the files; nothing may run."""
        for file in (self._reader, self.writer, self.outbox):
            file.close()

    async def _take_up_the_last_run(self) -> None:
        session, last_ms = self._owner.moment()
        aside = self.writer.quarantined
        if aside is not None:
            last_ms = sqlite_spool.written_ms(aside)
        # Where both files are gone, no cursor tells from when on rows are lost.
        were_there = self._was_used or (aside is not None and self.outbox.quarantined is not None)
        both = (last_ms, last_ms) if were_there and self.writer.is_new and self.outbox.is_new else None
        await self._take_up(session, last_ms, both)

    async def _take_up(self, session: str, last_ms: int, gone: tuple[int, int] | None) -> None:
        epoch = self.outbox.epoch
        try:
            self._owner.kept(await self.outbox_lane.run(self.outbox.waiting), fresh=False)
            await self._follow(session, last_ms, gone)
            await self.compact()
        finally:
            # Where the outbox was set aside meanwhile, another is being taken up.
            if self.outbox.epoch == epoch:
                self._is_settled = True
        await self.tidy()

    async def _follow(self, session: str, last_ms: int, gone: tuple[int, int] | None = None) -> None:
        """Make packets of the readings file that is there now, and declare what is lost with another."""
        gone = gone or await self.file_lane.run(self.writer.bare)
        file_id = self._reader.file_id
        last_row = await self.file_lane.run(self.writer.last_row, file_id)
        floor = await self.file_lane.run(self.writer.floor)
        await self.outbox_lane.run(self.outbox.follow, file_id, last_row, session, last_ms, gone, floor)
        await self._declare()

    async def _declare(self) -> None:
        """Write losses down, so that packets tell of them, and tell whoever listens now."""
        losses = await self.outbox_lane.run(self.outbox.undeclared)
        session, now_ms = self._owner.moment()
        for one in await self.file_lane.run(self.writer.declare, session, now_ms, losses):
            self.lost[one.reason] = self.lost.get(one.reason, 0) + 1
            self._log.error("lost: {one}", one=one)
            self._owner.tell("lost_range", lost_form(one))

    async def _check(self) -> None:
        """Look through both files, once a run, beside all else."""
        if not await self._check_lane.run(sqlite_spool.is_sound, self.writer.path):
            await self._replace_readings()
        if not await self._check_lane.run(sqlite_spool.is_sound, self.outbox.path):
            await self._replace(self.outbox, self.outbox_lane)

    async def _replace_readings(self) -> None:
        if self.writer.file_id == self._reader.file_id:
            await self._replace(self.writer, self.file_lane)

    async def _replace(self, file: ReadingsWriter | SqliteOutbox, lane: Lane) -> None:
        try:
            await lane.run(file.renew, _UNSOUND)
        finally:
            # Where there is no room for another file, the next that is written makes it.
            self._met(file, "corrupt")

    def _met(self, file: ReadingsWriter | SqliteOutbox, kind: Fault) -> None:
        if kind == "full":
            self._detach(partial(self.tidy, is_full=True), "no room was made")
            return
        self._say_set_aside(file)
        self._is_settled = False
        if file is self.writer:
            before, now_ms = self._owner.moment()
            self._owner.begin_session()
            self._detach(partial(self._leave_readings, before, now_ms), "what is lost is declared by the next run")
        else:
            self._owner.begin_outbox()
            self._detach(partial(self._take_up, *self._owner.moment(), None), "outbox not taken up")

    async def _leave_readings(self, session: str, now_ms: int) -> None:
        # Most of its rows can be read still, and each has its checksum.
        pack, epoch = partial(self.compact, closing=True), self.outbox.epoch
        try:
            await errand.attempt(self._log, pack, "the last minutes of the corrupt file are lost")
            await self.outbox_lane.run(self._reader.reopen)
            await self._follow(session, now_ms)
        finally:
            # As in `_take_up`; a card that is too full for this wants to be tidied, too.
            self._is_settled = self._is_settled or self.outbox.epoch == epoch

    async def _tidy(self, is_full: bool) -> None:
        if is_full:
            self._ballast.drop()
        used = sqlite_spool.used_bytes(self._directory)
        tidying = Tidying(used, self._max_bytes, is_full=is_full)
        step: Step | None = tidying.begun()
        while step is not None and self._is_settled:
            try:
                count = await self._forget(step, "card_full" if is_full else "bound")
                await self._give_back(0 if tidying.is_pressed else _SPARE_BYTES)
            except SpoolFaultError as error:
                # The next step may find room where this one found none.
                self._log.warn("{step} cannot be forgotten: {error}", step=step.value, error=error)
                count = 0
            step = tidying.went(count, sqlite_spool.used_bytes(self._directory))
        self._ballast.take()
        await self._declare()

    async def _forget(self, step: Step, why: str) -> int:
        """Do a step once; return how many things went."""
        file_id, ran_ms = self.writer.file_id, self._owner.ran_ms()
        if step is Step.SET_ASIDE:
            for path in sqlite_spool.set_aside_files(self._directory)[:1]:
                sqlite_spool.forget_set_aside(path)
                return 1
            return 0
        if step is Step.EXPIRED or step is Step.SETTLED:
            before_ms = ran_ms + 1 if step is Step.SETTLED else ran_ms - self._keep_ms
            return await self.outbox_lane.run(self.outbox.forget, before_ms, ran_ms, _PACKETS_AT_ONCE)
        if step is Step.UNSENT:
            return await self.outbox_lane.run(self.outbox.forget_unsent, _UNSENT_AT_ONCE, why)
        if step is Step.UNPACKED and not await self.outbox_lane.run(self._compactor.give_up, _GIVEN_UP_AT_ONCE, why):
            return 0
        floor = await self.file_lane.run(self.writer.floor)
        if step is Step.SETTLED_ROWS or step is Step.UNPACKED:
            kept = max(floor, await self.outbox_lane.run(self.outbox.first_row_kept, file_id))
        else:
            kept = await self.outbox_lane.run(self.outbox.row_after, file_id, floor, _MINUTES_AT_ONCE)
        bare_ms = await self.outbox_lane.run(self.outbox.bare_ms, file_id, kept)
        return await self.file_lane.run(self._forget_rows, file_id, kept, bare_ms)

    def _forget_rows(self, file_id: int, kept: int, bare_ms: int | None) -> int:
        """Forget rows of that file, which may have been set aside meanwhile."""
        return self.writer.forget(kept, _ROWS_AT_ONCE, bare_ms) if file_id == self.writer.file_id else 0

    async def _give_back(self, spare: int) -> None:
        for lane, file in ((self.outbox_lane, self.outbox), (self.file_lane, self.writer)):
            while await lane.run(file.give_back, _BYTES_AT_ONCE, spare):
                pass

    def _say_set_aside(self, file: ReadingsWriter | SqliteOutbox) -> None:
        self._log.error(
            "{path} cannot be used ({why}) and is set aside as {aside}",
            path=file.path,
            why=file.trouble,
            aside=file.quarantined,
        )

"""Which trouble codes the car has held since when. Pure."""

from dataclasses import dataclass, replace

from components.edge.ports import Dtc, DtcReport
from components.wire.packet import TroubleCode


@dataclass(frozen=True, slots=True)
class DtcBook:
    """The codes of the latest report, with the times when each was first and last seen (ms UTC).

    `read_at_ms` is None until the car has answered once.
    """

    codes: tuple[TroubleCode, ...] = ()
    read_at_ms: int | None = None

    def updated(self, report: DtcReport, at_ms: int) -> "tuple[DtcBook, tuple[Dtc, ...], tuple[TroubleCode, ...]]":
        """Take a whole report; return the new book, the codes that appeared and those that were cleared."""
        known = {(one.code, one.status, one.ecu): one for one in self.codes}
        codes: list[TroubleCode] = []
        appeared: list[Dtc] = []
        for one in report.codes:
            held = known.pop((one.code, one.status, one.ecu), None)
            if held is None:
                appeared.append(one)
                held = TroubleCode(one.code, one.status, one.ecu, at_ms, at_ms)
            codes.append(replace(held, last_seen_ms=at_ms))
        return DtcBook(tuple(codes), at_ms), tuple(appeared), tuple(known.values())

    def shifted(self, offset_ms: int) -> "DtcBook":
        """Return the book on a timeline that is `offset_ms` ahead; in the session that begins it was not read yet."""
        codes = (
            replace(one, first_seen_ms=one.first_seen_ms + offset_ms, last_seen_ms=one.last_seen_ms + offset_ms)
            for one in self.codes
        )
        return DtcBook(tuple(codes), None)

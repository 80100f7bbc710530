"""A control unit: diagnostic request in, answer out (SAE J1979 on CAN, modes 01 02 03 04 07 09 0A). Pure.

It knows no adapter and no frames: ISO-TP is `isotp`, what a client sees is `elm327`.
"""

from components.virtual_car.codes import CodeMemory, code_bytes
from components.virtual_car.moment import Moment
from components.virtual_car.pids import BY_PID, MASK_PIDS, MEMORY_PIDS, mask, pids_of

MAX_PIDS_PER_REQUEST = 6
_CONDITIONS_NOT_CORRECT = 0x22


class Ecu:
    """One control unit of the car. What it does not support it does not answer: that is J1979's way of saying no.

    Args:
        address: CAN identifier of its answers (0x7E8 to 0x7EF); it listens at 8 below and at 0x7DF.
        supported: Signal keys.
        codes: Its code memory, changed by mode 04 only.
        vehicle_info: Mode-09 data by info type, the count byte left out, e.g. `{0x02: b"1ZZ…"}`.
    """

    def __init__(
        self, address: int, supported: frozenset[str], codes: CodeMemory, vehicle_info: dict[int, bytes]
    ) -> None:
        self.address = address
        self.codes = codes
        self._pids = pids_of(supported)
        self._vehicle_info = vehicle_info

    def answer(self, request: bytes, moment: Moment) -> bytes | None:
        """Answer one request.

        Args:
            request: Service byte and parameters, 1 to 7 bytes.
            moment: What the car says now.

        Returns:
            Service byte + 0x40 and data, or `7F service reason`; None: the unit is silent.
        """
        mode, parameters = request[0], request[1:]
        match mode:
            case 0x01:
                return self._current(parameters, moment)
            case 0x02:
                return self._frozen(parameters)
            case 0x09:
                return self._info(parameters)
            case 0x04 if not parameters:
                return self._clear(moment)
        return self._code_list(mode) if not parameters else None

    def _code_list(self, mode: int) -> bytes | None:
        """Modes 03, 07, 0A: on CAN the number of codes comes before them."""
        lists = {0x03: self.codes.stored, 0x07: self.codes.pending, 0x0A: self.codes.permanent}
        codes = lists.get(mode)
        return None if codes is None else bytes([mode + 0x40, len(codes)]) + b"".join(map(code_bytes, codes))

    def _current(self, pids: bytes, moment: Moment) -> bytes | None:
        """Mode 01: one answer with every supported PID of the request, in its order."""
        if len(pids) > MAX_PIDS_PER_REQUEST:
            return None
        known = [(pid, self._data(pid, moment)) for pid in pids]
        body = b"".join(bytes([pid]) + data for pid, data in known if data is not None)
        return b"\x41" + body if body else None

    def _data(self, pid: int, moment: Moment) -> bytes | None:
        """The data bytes of a PID of mode 01, None where this car has none now."""
        if pid in MASK_PIDS:
            # The unit keeps still beyond its last mask, as the bit in the mask before has announced.
            return mask(pid, self._pids) if pid == 0 or any(known > pid for known in self._pids) else None
        if pid not in self._pids:
            return None
        if pid == MEMORY_PIDS["dtc_status"]:
            return self.codes.status_bytes()
        if pid == MEMORY_PIDS["dtc_ff"]:
            return self._freeze_code()
        item = BY_PID[pid]
        value = moment.values.get(item.key)
        return value if value is None or isinstance(value, bytes) else item.encode(value)

    def _freeze_code(self) -> bytes:
        """The code that caused the freeze frame; 0000: there is none."""
        return code_bytes(self.codes.freeze.code) if self.codes.freeze else bytes(2)

    def _frozen(self, parameters: bytes) -> bytes | None:
        """Mode 02: pairs of PID and frame number; this car keeps frame 0 only."""
        if not parameters or len(parameters) % 2:
            return None
        body = b""
        for pid, frame in zip(parameters[::2], parameters[1::2], strict=True):
            data = None if frame else self._frozen_data(pid)
            if data is not None:
                body += bytes([pid, frame]) + data
        return b"\x42" + body if body else None

    def _frozen_data(self, pid: int) -> bytes | None:
        """The data bytes of a PID of the freeze frame; without a frame only 00 and 02 answer, 02 with 0000."""
        if pid == MEMORY_PIDS["dtc_ff"]:
            return self._freeze_code() if pid in self._pids else None
        if self.codes.freeze is None:
            return mask(0, self._pids & {MEMORY_PIDS["dtc_ff"]}) if pid == 0 else None
        if pid == MEMORY_PIDS["dtc_status"]:
            return None
        return self._data(pid, self.codes.freeze.moment)

    def _info(self, parameters: bytes) -> bytes | None:
        """Mode 09: one info type a request; on CAN a count byte comes before the data."""
        if len(parameters) != 1:
            return None
        (info_type,) = parameters
        if info_type == 0:
            return b"\x49\x00" + mask(0, self._vehicle_info)
        data = self._vehicle_info.get(info_type)
        return None if data is None else bytes([0x49, info_type, 1]) + data

    def _clear(self, moment: Moment) -> bytes:
        """Mode 04: refused while the engine runs, as real units do."""
        if moment.engine_runs:
            return bytes([0x7F, 0x04, _CONDITIONS_NOT_CORRECT])
        self.codes = self.codes.cleared()
        return b"\x44"

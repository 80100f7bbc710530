"""A GSM modem that knows who it is and little else. Pure: bytes in, bytes out."""

from components.virtual_car.chip import Turn
from components.virtual_car.identity import Identity


class Modem:
    """The AT interpreter (3GPP TS 27.007, ITU-T V.250).

    Args:
        identity: Its IMEI and its SIM card's ICCID.
    """

    def __init__(self, identity: Identity) -> None:
        self.echo = True
        self._line = b""
        self._answers = {
            "": "",
            "I": "odograph virtual modem",
            "+CGMI": "odograph",
            "+CGMM": "virtual modem",
            "+CGSN": identity.imei,
            "+GSN": identity.imei,
            "+CCID": f"+CCID: {identity.iccid}",
            "+ICCID": f"+ICCID: {identity.iccid}",
            "^ICCID?": f"^ICCID: {identity.iccid}",
            "+CPIN?": "+CPIN: READY",
            "+CSQ": "+CSQ: 20,99",
        }

    def received(self, data: bytes) -> Turn:
        """Hear bytes; every line that a carriage return ends is obeyed at once."""
        out = b""
        for byte in data:
            if self.echo:
                out += bytes([byte])
            if byte == ord("\r"):
                line, self._line = self._line, b""
                out += self._obeyed(line.decode("ascii", "replace").strip().upper())
            elif byte != ord("\n"):
                self._line += bytes([byte])
        return Turn(out)

    def woke(self) -> Turn:
        """It never asks to be woken."""
        return Turn()

    def _obeyed(self, line: str) -> bytes:
        if not line:
            return b""
        command = line.removeprefix("AT")
        if command == line:
            return b"\r\nERROR\r\n"
        if command in {"E0", "E1", "E", "Z", "&F"}:
            self.echo = command not in {"E0", "E"}
            return b"\r\nOK\r\n"
        answer = self._answers.get(command)
        if answer is None:
            return b"\r\nERROR\r\n"
        return (f"\r\n{answer}\r\n" if answer else "").encode() + b"\r\nOK\r\n"

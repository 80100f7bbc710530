"""The connection to the adapter: opens it, plays the scripts on it, asks one thing at a time, and mends itself. Rim.

What it is not: it knows no signal, tier or value (`meeting` does). Its states are one table:

    state     plays                        succeeds   fails
    --------  ---------------------------  ---------  -----------------------------------------
    closed    open the port                waking     closed, next try after 1, 2, 2, … s
    waking    set_up with ATWS             meeting +  resetting
    resetting set_up with ATZ              meeting +  closed
    meeting   meet (0100, PIDs, VIN)       ready      bus away: meeting, next try after 2 s;
                                                      adapter: waking
    ready     requests                     ready      no answer: resync; settings lost: waking;
                                                      nothing but refusals: meeting
    looking   look_again (0100, PIDs)      ready      resync
    resync    agree_again (ATI)            ready *    waking
    resting   rest (ATI, ATRV)             rested -   waking
    rested    nothing                      `advance`: meeting; `rest`: resting

    * meeting, when the adapter was searching for the bus, or 5 requests in succession were not answered.
    + resting, when it is `rest` that goes on; it takes meeting, ready, looking and resync to resting, too.
    - meeting, when it is `advance` that goes on: the rest before it had too little time.
    everywhere: when the port goes away, or sends without end: closed.

The ladder is: resync (drain, ATI), ATWS, ATZ, close and reopen, another port. It drains and asks ATI where others send
a bare CR: that repeats the last command, and the last command may have been the one that clears codes.

An adapter that may be busy is only ever sent AT commands: the first character of a command stops it and is lost, and
`0100` without its first digit is another request. Each call moves on as far as its deadline lets it; a command that is
still being answered is taken up by the next call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from twisted.logger import Logger

from components.edge.elm_answer import Answer, parse_answer
from components.edge.elm_dialogue import (
    COMMAND_MS,
    RESET_MS,
    WARM_START_MS,
    Acquaintance,
    Ask,
    AwayError,
    Script,
    agree_again,
    look_again,
    meet,
    parse_voltage,
    rest,
    set_up,
)
from components.edge.obd_parser import Heard, Message
from components.edge.serial_line import Clock, Line, LineGoneError

State = Literal["closed", "waking", "resetting", "meeting", "ready", "looking", "resync", "resting", "rested"]

_OPEN_AGAIN_MS: Final = (1_000, 2_000)
"""So that an adapter that is plugged in again is being read within 5 s."""
_MEET_AGAIN_MS: Final = 2_000
_MAX_ANSWER_BYTES: Final = 16_384
_MAX_UNANSWERED: Final = 5
"""More than the sizes of a group that are tried."""
_LOG_AGAIN_MS: Final = 600_000
_MAX_LOGGED: Final = 16
_MAX_WORDS: Final = 200
_SEARCHES: Final = (b"SEARCHING", b"BUS INIT")

Concerns = Callable[[Message], bool]

_AFTER: Final[dict[State, tuple[State, State]]] = {
    "waking": ("meeting", "resetting"),
    "resetting": ("meeting", "closed"),
    "meeting": ("ready", "waking"),
    "looking": ("ready", "resync"),
    "resync": ("ready", "waking"),
    "resting": ("rested", "waking"),
}
_TOWARDS: Final[dict[tuple[State, State], State]] = {
    ("rested", "meeting"): "resting",
    ("ready", "rested"): "meeting",
}
"""Where the goal leads elsewhere: by the goal and the state that would come."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request brought: the adapter's words and the ECUs' messages, heard at `at_ms`."""

    answer: Answer
    heard: Heard
    at_ms: int


class ObdLink:
    """One adapter.

    Args:
        ports: Returns the ports to try now; asked again at every opening, so a port may come back under another name.
        open_line: Opens one of them by a deadline (elapsed ms), or LineGoneError.
        protocol: "auto", or the number of a bus.
        clock: Elapsed ms.
    """

    def __init__(
        self, ports: Callable[[], Sequence[str]], open_line: Callable[[str, int], Line], protocol: str, clock: Clock
    ) -> None:
        self._ports = ports
        self._open_line = open_line
        self._protocol = protocol
        self._clock = clock
        self._log = Logger()
        self._line: Line | None = None
        self._buffer = b""
        self._script: Script | None = None
        self._command = ""
        self._until_ms = self._quiet_until_ms = 0
        self._not_before_ms = 0
        self._concerns: Concerns = lambda _: False
        self._left_ms: int | None = None
        self._has_pids: Mapping[str, frozenset[int]] = {}
        self._opened = 0
        self._failures = 0
        self._unanswered = 0
        self._logged: set[str] = set()
        self._logged_ms = 0
        self._good_port: str | None = None
        self._goal: Literal["ready", "rested"] = "ready"
        self.state: State = "closed"
        self.is_waiting = False
        """Whether a request is on its way."""
        self.known = Acquaintance()
        self.port: str | None = None
        self.meetings = 0
        """How often the car was met: when it changes, everything about the car may have changed."""
        self.why = "adapter_error"
        """The reason of every signal while the state is neither ready nor resync."""
        self.trouble = ""
        self.voltage_v: float | None = None
        """At the plug, when ATRV was last asked, at `voltage_ms`; None when that gave none."""
        self.voltage_ms: int | None = None

    @property
    def is_met(self) -> bool:
        """Whether the car was met and nothing speaks against its being there yet."""
        return self.state in {"ready", "looking", "resync"}

    def advance(self, deadline_ms: int) -> bool:
        """Move towards `ready` until the deadline; return whether it is ready."""
        if self.state == "rested":
            self._enter("meeting")
        return self._reach("ready", deadline_ms)

    def rest(self, deadline_ms: int) -> None:
        """Keep away from the car's bus, and ask for the voltage once more, as far as the deadline lets it."""
        if self.state not in {"closed", "waking", "resetting", "resting"}:
            self._not_before_ms = 0  # the wait for the bus
            self._enter("resting")
        self._note_voltage(None)
        self._reach("rested", deadline_ms)

    def _reach(self, goal: Literal["ready", "rested"], deadline_ms: int) -> bool:
        self._goal = goal
        while self.state != goal:
            now_ms = self._clock()
            if now_ms >= deadline_ms or now_ms < self._not_before_ms:
                return False
            try:
                self._step(deadline_ms)
            except LineGoneError as error:
                self._lose_port("adapter_error", str(error))
        return True

    def send(self, command: str, concerns: Concerns, limit_ms: int = COMMAND_MS) -> None:
        """Ask, in state `ready`, when nothing is on its way; `reply` has what comes.

        Args:
            command: Without its CR.
            concerns: Whether a message belongs to this request. An answer that came late has none that does.
            limit_ms: How long the answer may take.
        """
        self._until_ms = self._clock() + limit_ms
        self._concerns = concerns
        self._left_ms = None
        try:
            self._send(command, self._until_ms)
        except LineGoneError as error:
            self._lose_port("adapter_error", str(error))
        else:
            self.is_waiting = True

    def reply(self, deadline_ms: int) -> Reply | None:
        """Wait for the answer to what was sent.

        Returns:
            What came; an Answer with reason `timeout` or `adapter_error` where nothing whole did within the request's
            limit, and then the state is another. None: the deadline was before that; it is still on its way. Never
            raises.
        """
        bus = self.known.bus
        if not self.is_waiting or bus is None:
            return Reply(Answer(reason=self.why), Heard(()), self._clock())
        began_ms = self._clock()
        try:
            while True:
                raw = self._receive(min(deadline_ms, self._until_ms))
                if raw is None and self._clock() < self._until_ms:
                    self._left_ms = self._clock()
                    return None
                answer = parse_answer(raw if raw is not None else self._buffer, self._command)
                heard = bus.messages(answer.hex_lines)
                if raw is None or answer.text_lines or not heard.is_whole or any(map(self._concerns, heard.messages)):
                    break
        except LineGoneError as error:
            self._lose_port("adapter_error", str(error))
            return Reply(Answer(reason="adapter_error"), Heard(()), self._clock())
        self.is_waiting = False
        at_ms = self._clock()
        if self._left_ms is not None and at_ms == began_ms:
            at_ms = self._left_ms  # it may have come at any time since nobody listened
        self._judge(answer)
        return Reply(answer, heard, at_ms)

    def ask(self, command: str, deadline_ms: int, concerns: Concerns) -> Reply:
        """Ask once and wait until the deadline, which is the request's limit too."""
        if self.state == "ready":
            self.send(command, concerns, max(0, deadline_ms - self._clock()))
        if (reply := self.reply(deadline_ms)) is None:
            # The clock ticked between the deadline and the limit.
            self._enter("resync")
            reply = Reply(Answer(reason="timeout"), Heard(()), self._clock())
        return reply

    def look_again(self) -> None:
        """Ask once more what the car has, in state `ready`; what is new is a new meeting."""
        self._enter("looking")

    def lose_car(self, why: str, words: str) -> None:
        """The adapter is well but the car says nothing any more: look for it anew."""
        self._fail("meeting", why, words)

    def tell(self, words: str) -> None:
        """Keep what is wrong (or "") for `state`; log it when it is new, for the log is a card that wears out."""
        self.trouble = words = words[:_MAX_WORDS]
        now_ms = self._clock()
        if now_ms - self._logged_ms > _LOG_AGAIN_MS:
            self._logged_ms = now_ms
            self._logged.clear()
        if words and words not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(words)
            self._log.warn("car at {port}: {words}", port=self.port, words=words)

    def close(self) -> None:
        """Let go of the port; the next `advance` opens it again at once."""
        if self._line is not None:
            self._line.close()
        self._line = None
        self.port = None
        self._not_before_ms = 0
        self._note_voltage(None)
        self._enter("closed")

    def _step(self, deadline_ms: int) -> None:
        if self.state == "closed":
            self._open(deadline_ms)
            return
        try:
            if self._script is None:
                self._script = self._new_script()
                self._begin(next(self._script), deadline_ms)
            raw = self._receive(min(self._limit_ms(), deadline_ms))
            if raw is None and self._clock() < self._limit_ms():
                return  # the call's deadline, not the command's
            answer = parse_answer(raw if raw is not None else self._buffer, self._command)
            if self._command == "ATRV":
                self._note_voltage(answer)
            self._begin(self._script.send(answer), deadline_ms)
        except StopIteration:
            self._succeed()
        except AwayError as error:
            if self.state == "meeting" and error.is_bus:
                self._fail("meeting", error.reason, error.words)
                self._not_before_ms = self._clock() + _MEET_AGAIN_MS
            elif self.state == "resetting":
                self._lose_port(error.reason, error.words)
            else:
                # A wait, or an adapter that answers at once, but nonsense, would be driven in a circle.
                self._not_before_ms = self._clock() + (_OPEN_AGAIN_MS[0] if self.state == "meeting" else 0)
                self._fail(_AFTER[self.state][1], error.reason, error.words)

    def _new_script(self) -> Script:
        if self.state == "waking":
            return set_up(self.known, Ask("ATWS", WARM_START_MS), self._protocol)
        if self.state == "resetting":
            return set_up(self.known, Ask("ATZ", RESET_MS), self._protocol)
        if self.state == "meeting":
            return meet(self.known)
        if self.state == "resting":
            return rest(self.known.adapter)
        if self.state == "looking" and self.known.bus is not None:
            return look_again(self.known, self.known.bus)
        return agree_again(self.known.adapter)

    def _begin(self, ask: Ask | None, deadline_ms: int) -> None:
        """Send what the script asks; None: it listens on, within the limit of what it asked before."""
        if ask is not None:
            self._until_ms = self._clock() + ask.limit_ms
            self._quiet_until_ms = self._clock() + ask.quiet_ms
            self._send(ask.command, max(deadline_ms, self._until_ms))

    def _limit_ms(self) -> int:
        """When the waiting for the command's answer ends: later while the adapter says that it searches."""
        said = parse_answer(self._buffer + b"\r", self._command)
        searches = any(word in self._buffer for word in _SEARCHES) and not said.hex_lines
        return self._until_ms if searches else min(self._until_ms, self._quiet_until_ms)

    def _succeed(self) -> None:
        if self.state == "meeting" or self.known.pids != self._has_pids:
            self._has_pids = self.known.pids
            self.meetings += 1
        if self.state == "meeting":
            self._failures = self._unanswered = 0
            self._good_port, self._opened = self.port, 0
            self.tell("")
        after = _AFTER[self.state][0]
        if self.state == "resync" and self._unanswered >= _MAX_UNANSWERED:
            after = "meeting"
        self._enter(_TOWARDS.get((self._goal, after), after))

    def _judge(self, answer: Answer) -> None:
        """What an answer to a request, or its absence, means for the connection."""
        if self._command == "ATRV":
            self._note_voltage(answer)
        if not answer.prompted:
            self._unanswered += _MAX_UNANSWERED if any(word in self._buffer for word in _SEARCHES) else 1
            self.tell("the adapter did not answer in time")
            self._enter("resync")
            return
        self._unanswered = 0
        if answer.lost_settings:
            self._fail("waking", "adapter_error", answer.words)

    def _note_voltage(self, answer: Answer | None) -> None:
        self.voltage_v = parse_voltage(answer) if answer is not None else None
        self.voltage_ms = self._clock() if self.voltage_v is not None else None

    def _fail(self, state: State, why: str, words: str) -> None:
        self.why = why
        self.tell(words)
        self._enter(state)

    def _lose_port(self, why: str, words: str) -> None:
        wait_ms = _OPEN_AGAIN_MS[min(self._failures, len(_OPEN_AGAIN_MS) - 1)]
        self._failures += 1
        self.why = why
        self.tell(words)
        self.close()
        self._not_before_ms = self._clock() + wait_ms

    def _enter(self, state: State) -> None:
        self.state = state
        self.is_waiting = False
        if self._script is not None:
            self._script.close()
        self._script = None

    def _open(self, deadline_ms: int) -> None:
        ports = sorted(self._ports(), key=lambda port: port != self._good_port)
        if not ports:
            raise LineGoneError("no OBD adapter is plugged in")
        port = ports[self._opened % len(ports)]
        self._opened += 1
        self._line = self._open_line(port, deadline_ms)
        self.port = port
        self.known = Acquaintance()
        self.why = "timeout"
        self._enter("waking")

    def _send(self, command: str, until_ms: int) -> None:
        """Send a command after everything that came unasked was thrown away."""
        line = self._open_one()
        self._buffer = b""
        for _ in range(8):
            if not line.read(0):
                break
        line.write(command.encode() + b"\r", until_ms)
        self._command = command

    def _receive(self, until_ms: int) -> bytes | None:
        """Return the bytes up to and with the next prompt that has anything before it; None when none came by then."""
        line = self._open_one()
        while True:
            text, prompt, rest = self._buffer.partition(b">")
            if prompt:
                self._buffer = rest
                if text.strip(b"\r\n \0"):
                    return text + prompt
            else:
                if len(self._buffer) > _MAX_ANSWER_BYTES:
                    raise LineGoneError("the adapter sends without end")
                if self._clock() >= until_ms:
                    return None
                self._buffer += line.read(until_ms)

    def _open_one(self) -> Line:
        if self._line is None:
            raise LineGoneError("the port is closed")
        return self._line

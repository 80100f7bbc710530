"""What becomes of a batch of envelopes: judge, store, receipt; and what is still to be fed. Blocking.

Store before receipt: a receipt `stored` or `duplicate` is made only after the archive said that the packet is durable,
`rejected` only after the dead letter is. What may be right later gets `retry`, and nothing is stored.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from twisted.logger import Logger

from components import packet_log
from components.cloud.judge import Addressee, Arrival, Judge
from components.cloud.ports import MAX_WEIGHT, Archive, DeadLetter, StoredPacket
from components.wire.errors import BadInputError, NotYetError, RejectedError, UnavailableError
from components.wire.receipt import Receipt, digest

RETRY_AFTER_S: Final = 10
_REGISTRY_AWAY: Final = "registry_away"
_POISON_ATTEMPTS: Final = 3
_POISON_REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """What a batch came to.

    Attributes:
        receipts: With whom each is for; one an arrival whose topic names a device.
        stored: Packets that are new in the archive, to be fed.
        unavailable: Why nothing could be stored; "" when the archive answered.
    """

    receipts: list[tuple[Addressee, Receipt]]
    stored: list[StoredPacket]
    unavailable: str = ""


@dataclass(slots=True)
class Persister:
    """Decides over batches. One thread at a time.

    `counts` are of this process: by outcome, and by code for what was refused.
    """

    judge: Judge
    archive: Archive
    counts: dict[str, int] = field(default_factory=dict)
    _crashes: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _log = Logger()

    def persist(self, batch: Sequence[Arrival]) -> Result:
        """Take a batch that waited together and store it as one, or in parts where its packets are very large."""
        whole = Result([], [])
        while batch and not whole.unavailable:
            taken, part = self._persist(batch)
            batch = batch[taken:]
            room = MAX_WEIGHT - sum(one.weight for one in whole.stored)
            # What is stored and not handed on to be fed is pending in the archive; a sweep finds it there.
            fits = sum(one.weight for one in part.stored) <= room or not whole.stored
            whole = Result(
                whole.receipts + part.receipts, whole.stored + (part.stored if fits else []), part.unavailable
            )
        # Not tried: an archive that is away takes its driver's time-out each time.
        untried = [(one.addressee, self._refusal(one, "retry", "archive_away")) for one in batch]
        return replace(whole, receipts=whole.receipts + [(to, one) for to, one in untried if to is not None])

    def _persist(self, batch: Sequence[Arrival]) -> tuple[int, Result]:
        """Take as much of a batch as may be in memory at once; return how many arrivals that were, and the result."""
        receipts: list[tuple[Arrival, Receipt]] = []
        packets: list[tuple[Arrival, StoredPacket]] = []
        letters: list[tuple[Arrival, DeadLetter]] = []
        taken = weight = 0
        away = False
        while taken < len(batch) and weight <= MAX_WEIGHT:
            arrival = batch[taken]
            taken += 1
            if away:
                # Not tried: a registry that is locked takes its time-out each time.
                receipts.append((arrival, self._refusal(arrival, "retry", _REGISTRY_AWAY)))
                continue
            try:
                packets.append((arrival, self._judge(arrival)))
                weight += packets[-1][1].weight
            except NotYetError as error:
                away = error.code == _REGISTRY_AWAY
                receipts.append((arrival, self._refusal(arrival, "retry", error.code)))
            except RejectedError as error:
                # Not the error: its traceback would hold all that was opened of each packet of the batch.
                letters.append((arrival, _letter(arrival, error)))
        stored: list[StoredPacket] = []
        unavailable = ""
        try:
            if letters:
                self.archive.put_dead_letters([letter for _, letter in letters])
            receipts += [(arrival, self._refusal(arrival, "rejected", letter.code)) for arrival, letter in letters]
            letters = []
            outcomes = self.archive.insert([one for _, one in packets]) if packets else []
            for (arrival, one), outcome in zip(packets, outcomes, strict=True):
                receipts.append((arrival, self._receipt(arrival, one, outcome)))
                if outcome == "stored":
                    stored.append(one)
        except UnavailableError as error:
            unavailable = str(error)
            waiting = [arrival for arrival, _ in (*letters, *packets)]
            receipts += [(arrival, self._refusal(arrival, "retry", "archive_away")) for arrival in waiting]
        to_whom = ((arrival.addressee, receipt) for arrival, receipt in receipts)
        return taken, Result([(to, receipt) for to, receipt in to_whom if to is not None], stored, unavailable)

    def refuse(self, arrival: Arrival, code: str) -> Receipt:
        """Return the receipt for an envelope that there was no room to look at."""
        return self._refusal(arrival, "retry", code)

    def _judge(self, arrival: Arrival) -> StoredPacket:
        try:
            return self.judge.judge(arrival)
        except BadInputError:
            raise
        except UnavailableError as error:
            # The registry cannot be read now: that is no fault of the packet.
            raise NotYetError(_REGISTRY_AWAY, str(error)) from error
        except MemoryError as error:
            # No packet is that large: others took the memory.
            raise NotYetError("out_of_memory", type(error).__name__) from error
        except Exception as error:
            # A packet that crashes us must not do so for ever, nor be thrown away for one bad moment of ours.
            name = digest(arrival.envelope)
            crashes = self._crashes[name] = self._crashes.get(name, 0) + 1
            if len(self._crashes) > _POISON_REMEMBERED:
                self._crashes.popitem(last=False)
            self._log.failure("packet {name} crashed the judge, time {crashes}", name=name, crashes=crashes)
            if crashes < _POISON_ATTEMPTS:
                raise NotYetError("crashed", type(error).__name__) from error
            raise RejectedError("poison", f"crashed {crashes} times: {type(error).__name__}") from error

    def _receipt(
        self, arrival: Arrival, packet: StoredPacket, outcome: Literal["stored", "duplicate", "conflict"]
    ) -> Receipt:
        self._count(outcome)
        name = digest(arrival.envelope)
        packet_log.tell(self._log, outcome, packet.id, envelope=name)
        if outcome == "conflict":
            return Receipt(name, packet.id, "rejected", "conflict")
        return Receipt(name, packet.id, outcome)

    def _refusal(self, arrival: Arrival, status: Literal["rejected", "retry"], code: str) -> Receipt:
        self._count(status)
        self._count(f"{status}.{code}")
        name = digest(arrival.envelope)
        event: packet_log.Event = "rejected" if status == "rejected" else "retried"
        # Not by its id: what crashed the judge may crash whoever reads it again.
        packet_log.tell(self._log, event, None, envelope=name, topic=arrival.topic, code=code)
        return Receipt(name, None, status, code, RETRY_AFTER_S if status == "retry" else None)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _letter(arrival: Arrival, error: RejectedError) -> DeadLetter:
    return DeadLetter(
        digest(arrival.envelope), arrival.topic, error.code, str(error), arrival.envelope, arrival.received_ms
    )

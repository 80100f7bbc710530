"""The one line that a log has of each thing that happens to a packet, at either end. Rim: it logs.

    packet rejected packet=car_one/0f1e2d3c4b5a6978/20261121T100500Z envelope=9f86d081… code=signature

Words are key=value; a value with anything but plain characters is JSON text. The same facts are fields of the log
event, for an observer that writes JSON. Nothing of a packet's content is ever in it.
"""

import json
import re
from typing import Final, Literal

from twisted.logger import Logger, LogLevel

Event = Literal[
    "made", "published", "not_taken", "receipted", "retried", "rejected", "stored", "duplicate", "conflict", "fed"
]
_PLAIN: Final = re.compile(r"[\w./:+-]+", re.ASCII)
_LEVELS: Final = {
    # A packet that fares well is told at the edge to who asks for it (debug), as its log may be a card that wears out;
    # the server tells each.
    "made": LogLevel.debug,
    "published": LogLevel.debug,
    "receipted": LogLevel.debug,
    "not_taken": LogLevel.warn,
    "retried": LogLevel.info,
    "rejected": LogLevel.error,
    "stored": LogLevel.info,
    "duplicate": LogLevel.info,
    "conflict": LogLevel.error,
    "fed": LogLevel.info,
}


def tell(log: Logger, event: Event, packet: str | None, **facts: object) -> None:
    """Log that something happened to a packet.

    Args:
        packet: Its id; None where the envelope could not be opened, and its hash among `facts` must do.
        facts: What else is known; those that are None are left out.
    """
    told = {"packet": packet, **facts}
    words = line(told)
    log.emit(_LEVELS[event], "packet {event} {words}", event=event, words=words, **told)


def line(facts: dict[str, object]) -> str:
    """Return facts as key=value.

    >>> line({"packet": None, "code": "signature", "why": "two words"})
    'code=signature why="two words"'
    """
    return " ".join(f"{key}={_word(value)}" for key, value in facts.items() if value is not None)


def _word(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)

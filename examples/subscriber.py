"""The smallest subscriber: an operator hears every car's events. Run: python examples/subscriber.py KEYFILE [URL]."""
# mypy: disable-error-code="untyped-decorator"

import sys
from pathlib import Path

from autobahn.twisted.component import Component
from autobahn.twisted.wamp import Session
from autobahn.wamp.types import EventDetails, SubscribeOptions
from twisted.internet.task import react

from components.keyfile import read_key_file
from components.wire import topics

key = read_key_file(Path(sys.argv[1]))
url = sys.argv[2] if len(sys.argv) > 2 else "ws://127.0.0.1:8080/ws"
component = Component(
    transports=[{"type": "websocket", "url": url}],
    realm=topics.REALM,
    authentication={"cryptosign": {"authid": key.authid, "privkey": key.private_key}},
    is_fatal=lambda _: True,
)


def heard(*event: object, details: EventDetails) -> None:
    """Print one event; the publisher's id is the one that the router authenticated."""
    print(details.publisher_authid, *event, flush=True)


@component.on_join
async def joined(session: Session, _details: object) -> None:
    """Subscribe to the prefix of every event topic; ends with Ctrl-C."""
    await session.subscribe(heard, topics.event(""), options=SubscribeOptions(match="prefix", details=True))
    print("listening to", topics.event(""), flush=True)


react(component.start)

"""The smallest publisher: a device tells an event. Run: python examples/publisher.py DEVICE_KEYFILE [URL]."""
# mypy: disable-error-code="untyped-decorator"

import sys
from pathlib import Path

from autobahn.twisted.component import Component
from autobahn.twisted.wamp import Session
from autobahn.wamp.types import PublishOptions
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


@component.on_join
async def joined(session: Session, _details: object) -> None:
    """Publish to the device's own topic, which is the only one that the router lets it use for events."""
    done = PublishOptions(acknowledge=True)  # without it, a refusal would go unheard
    await session.publish(topics.event(key.authid), {"event": "hello"}, options=done)
    print("published to", topics.event(key.authid))
    session.leave()


react(component.start)

"""The smallest caller: an operator asks a car how it is. Run: python examples/caller.py KEYFILE DEVICE [URL]."""
# mypy: disable-error-code="untyped-decorator"

import json
import sys
from pathlib import Path

from autobahn.twisted.component import Component
from autobahn.twisted.wamp import Session
from autobahn.wamp.exception import ApplicationError
from twisted.internet.task import react

from components.keyfile import read_key_file
from components.wire import topics

key = read_key_file(Path(sys.argv[1]))
url = sys.argv[3] if len(sys.argv) > 3 else "ws://127.0.0.1:8080/ws"
component = Component(
    transports=[{"type": "websocket", "url": url}],
    realm=topics.REALM,
    authentication={"cryptosign": {"authid": key.authid, "privkey": key.private_key}},
    is_fatal=lambda _: True,
)


@component.on_join
async def joined(session: Session, _details: object) -> None:
    """Call the procedure that the car itself answers."""
    try:
        print(json.dumps(await session.call(topics.device_procedure(sys.argv[2], "status")), indent=2))
    except ApplicationError as error:  # wamp.error.no_such_procedure: the car is not connected
        print(f"{sys.argv[2]}: {error.error}")
    session.leave()


react(component.start)

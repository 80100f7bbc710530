"""The smallest callee: a device answers questions. Run: python examples/callee.py DEVICE_KEYFILE [URL]."""
# mypy: disable-error-code="untyped-decorator"

import sys
from pathlib import Path

from autobahn.twisted.component import Component
from autobahn.twisted.wamp import Session
from autobahn.wamp.types import CallDetails, RegisterOptions
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


def status(details: CallDetails) -> dict[str, object]:
    """Answer an operator, by the name that the router authenticated."""
    return {"device": key.authid, "asked_by": details.caller_authid, "as": details.caller_authrole}


@component.on_join
async def joined(session: Session, _details: object) -> None:
    """Register; `force_reregister`, because a link that died may still hold the name. Ends with Ctrl-C."""
    options = RegisterOptions(details=True, force_reregister=True)
    await session.register(status, topics.device_procedure(key.authid, "status"), options=options)
    print("answering", topics.device_procedure(key.authid, "status"), flush=True)


react(component.start)

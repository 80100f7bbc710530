"""Ask every car for its status and its trouble codes. Run: python examples/all_cars.py KEYFILE [URL]."""
# mypy: disable-error-code="untyped-decorator"

import json
import sys
from pathlib import Path

from autobahn.twisted.component import Component
from autobahn.twisted.wamp import Session
from autobahn.wamp.exception import ApplicationError
from twisted.internet.task import react

from components.keyfile import read_key_file
from components.wire.topics import REALM, device_procedure, fleet_procedure

key = read_key_file(Path(sys.argv[1]))
url = sys.argv[2] if len(sys.argv) > 2 else "ws://127.0.0.1:8080/ws"
component = Component(
    transports=[{"type": "websocket", "url": url}],
    realm=REALM,
    authentication={"cryptosign": {"authid": key.authid, "privkey": key.private_key}},
    is_fatal=lambda _: True,
)


@component.on_join
async def joined(session: Session, _details: object) -> None:
    """One line a car; all are asked at once, so that a slow one keeps nobody waiting."""
    cars: list[str] = []
    while page := await session.call(fleet_procedure("devices"), cars[-1] if cars else ""):
        cars += [car["id"] for car in page]
    asked = {(car, what): session.call(device_procedure(car, what)) for car in cars for what in ("status", "dtcs")}
    for (car, what), answer in asked.items():
        try:
            print(car, what, json.dumps(await answer))
        except ApplicationError as error:  # wamp.error.no_such_procedure: the car is not connected
            print(car, what, error.error)
    session.leave()


react(component.start)

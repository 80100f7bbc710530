"""ports.Gps over the network: the gpsd double, and one that misbehaves. The real gpsd: tests/services/test_gpsd.py."""

import socket

from components.virtual_car.car import VirtualCar
from tests.gps_parts import lost, wait_for, watching


def test_the_double_gives_places_and_their_end() -> None:
    with VirtualCar() as car, watching(car.gpsd) as gps:
        sample = wait_for(gps, lambda sample: bool(sample.values))
        assert sample.values["gps_fix"] == 3
        location = sample.values["location"]
        assert isinstance(location, dict)
        assert location["type"] == "Point"
        assert gps.utc_ms() is not None
        car.close()
        # Not "stale", as it is three seconds after the last word of one that is there.
        wait_for(gps, lost)


def test_rubbish_never_ends_the_connection_and_a_gpsd_that_comes_back_is_found() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    with server, watching(f"127.0.0.1:{port}") as gps:
        for place in (1.0, 2.0):
            connection, _ = server.accept()
            with connection:
                assert b'?WATCH={"enable":true,"json":true}' in connection.recv(100)
                connection.sendall(b"\xff\xfe\n{}\n[]\n" + b"x" * 100_000 + b"\n")
                connection.sendall(b'{"class":"TPV","mode":2,"lat":%f,"lon":0}\r\n' % place)
                expected = {"type": "Point", "coordinates": [0.0, place]}
                wait_for(gps, lambda sample, expected=expected: sample.values.get("location") == expected)  # type: ignore[misc]
            wait_for(gps, lambda sample: not sample.values)

"""A car without a car: ELM327 adapter, gpsd and modem doubles over one drive model; for the demo and the tests.

As a process `python -m components.virtual_car` (one JSON line tells where everything is), in a test
`with VirtualCar(Options(parked=True)) as car:` from `components.virtual_car.car`, and then `car.obd`, `car.obd_tcp`,
`car.gpsd`, `car.modem`, and `car.order({"fault": "no_data", "for_s": 10})` (`orders`, `faults`); the same orders come
by a socket and from a scenario (`control`, `scenario`). `vehicle.Vehicle` is that car without threads, on any clock.
What the car says at a time is one pure function, a `moment.Drive`; the adapter chip is one pure machine,
`elm327.Elm327`; threads, descriptors and clocks are in `line`, `serial_port`, `tcp_port`, `plug`, `gpsd_double`,
`control`, `clock` and `car`. It shares no code with the reader that it is there to test.
"""

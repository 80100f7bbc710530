"""A car without a car: ELM327 adapter, gpsd and modem doubles over one drive model; for the demo and the tests."""

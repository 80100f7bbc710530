"""odograph: connected-car telemetry on WAMP. The package is called `components`: its path is its name everywhere."""

"""odograph: connected-car telemetry on WAMP. The import package is called `components`; its path is its name everywhere."""

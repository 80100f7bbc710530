"""The Pi: capture, compact, spool, uplink, answer."""

"""What both ends agree on: pure data and functions; no socket, no clock, no randomness of its own."""

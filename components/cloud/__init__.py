"""The server: intake, persist, feed, authorise, answer."""

"""The `odograph` command."""

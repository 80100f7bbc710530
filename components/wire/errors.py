"""The error tree, split by who must act. Pure.

OdographError
├── OperatorError        a person must act; carries a `hint`
│   ├── ConfigError      a file, option or argument is wrong (exit code 2)
│   └── RefusedError     the other end said no: role, interlock, unknown device (exit code 1)
├── UnavailableError     wait: a router, store, adapter or device is away (exit code 1; retried inside processes)
└── BadInputError        bytes from outside that are not what they should be; carries a `code`
    ├── RejectedError    for ever: dead letter, receipt `rejected`
    └── NotYetError      not for ever: receipt `retry`, nothing is stored
"""

from collections.abc import Sequence


class OdographError(Exception):
    """The root of every error that odograph raises on purpose."""


class OperatorError(OdographError):
    """Something that a person must mend; `hint` says how, in one clause."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class ConfigError(OperatorError):
    """A configuration, option or file is wrong; every fault is in `faults`, each with its path."""

    def __init__(self, message: str, hint: str = "", faults: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "; ".join([super().__str__(), *self.faults])


class RefusedError(OperatorError):
    """The other end answered, and the answer is no; `reason` is a word that programs can test."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


class UnavailableError(OdographError):
    """A part that is needed is away now and may be back later; nothing was changed."""


class BadInputError(OdographError):
    """Bytes or text from outside that fail a check; `code` names the check."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class RejectedError(BadInputError):
    """A permanent fault of a packet: the same bytes will never be right."""


class NotYetError(BadInputError):
    """A fault of circumstance: the same bytes may be right later."""

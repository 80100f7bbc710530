"""Who is connected to the router and has not joined, and must go. Pure.

Crossbar has no time-out between the handshake and the join, and no limit for the connections of one address: whoever
knows the router's address could keep all others out by holding as many connections as it takes.
"""

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final

JOIN_S: Final = 30
"""So long a connection may be without a session; a car on the slowest link joins in less."""
MOST: Final = 500
"""So many connections without a session may come from one address at once: a carrier has many cars behind one."""


@dataclass(slots=True)
class Strangers:
    """Connections without a session, by their peer (`tcp4:192.0.2.7:40001`), and since when they are seen."""

    _since_s: dict[str, float] = field(default_factory=dict)

    def seen(self, connected: Iterable[str], joined: Container[str], now_s: float) -> dict[str, str]:
        """Take the connections of now; return those to cut, each with the reason.

        Args:
            connected: Peers of all connections.
            joined: Peers of those that have a session.
            now_s: Elapsed time.
        """
        before = self._since_s
        self._since_s = {peer: before.get(peer, now_s) for peer in connected if peer not in joined}
        of_host: Counter[str] = Counter()
        cut = {}
        for peer, since_s in sorted(self._since_s.items(), key=lambda one: one[1]):
            of_host[host(peer)] += 1
            if now_s - since_s >= JOIN_S:
                cut[peer] = "never_joined"
            elif of_host[host(peer)] > MOST:
                cut[peer] = "too_many"
        return cut


def host(peer: str) -> str:
    """Return where a peer comes from, without its port; of IPv6 the 64 bits that are given to one customer.

    >>> host("tcp4:192.0.2.7:40001"), host("tcp6:2001:db8:0:7::2:40001"), host("tcp6:::ffff:192.0.2.7:40001")
    ('tcp4:192.0.2.7', 'tcp6:2001:db8:0:7::/64', 'tcp4:192.0.2.7')
    """
    kind, _, rest = peer.partition(":")
    address = rest.rpartition(":")[0]
    if kind != "tcp6":
        return f"{kind}:{address}"
    six = IPv6Address(address.partition("%")[0])
    if six.ipv4_mapped is not None:
        return f"tcp4:{six.ipv4_mapped}"
    return f"tcp6:{IPv6Address(int(six) >> 64 << 64)}/64"

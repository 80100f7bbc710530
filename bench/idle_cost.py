"""What the agent costs a Pi while it does its work: memory and CPU of the real process, one reading a second.

`odograph edge` drives with a virtual car, gpsd and modem, each a process of its own, through a real router to a real
persister; only the agent is weighed, from /proc, for one whole period of a packet. The peer is a bare Python process
that imports what every WAMP client imports, and sleeps.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from components.console.fleet import Fleet, Plan
from components.edge.spool_view import SpoolView

WARM_UP_S: Final = 6
PERIOD_S: Final = 60
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PEER: Final = """
import time, autobahn.twisted.component, autobahn.wamp.cryptosign
from twisted.internet import reactor
time.sleep(600)
"""


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def memory_mb(pid: int) -> tuple[float, float]:
    """Return RSS, and PSS: what of it is not shared with other processes, in MB of 1024 KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return sizes["Rss"] / 1024, sizes["Pss"] / 1024


def peer_mb() -> float:
    """Return the RSS of the bare process."""
    peer = subprocess.Popen([sys.executable, "-c", _PEER])
    try:
        before, size = -1.0, memory_mb(peer.pid)[0]
        while size != before:
            time.sleep(1.0)
            before, size = size, memory_mb(peer.pid)[0]
        return size
    finally:
        peer.kill()
        peer.wait()


def main() -> None:
    """Print the figures of the agent, then the peer's."""
    with tempfile.TemporaryDirectory(prefix="odograph-bench-") as folder:
        plan = Plan(
            Path(folder) / "home",
            cars=1,
            period_s=PERIOD_S,
            parked=False,
            replay=None,
            archive="sqlite:archive.db",
            feed="sqlite:feed.db",
        )
        with Fleet.made(plan, time.time_ns() // 1_000_000) as fleet:
            fleet.start()
            agent, spool = fleet.cars[0].agent, SpoolView(fleet.cars[0].spool)
            while not spool.readings():
                fleet.check()
                time.sleep(0.2)
            time.sleep(WARM_UP_S)
            pid = agent.popen.pid if agent else 0
            readings, cpu, began = spool.readings(), cpu_s(pid), time.monotonic()
            time.sleep(PERIOD_S)
            spent, took = cpu_s(pid) - cpu, time.monotonic() - began
            readings = spool.readings() - readings
            rss, pss = memory_mb(pid)
            threads = len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - names only
    peer = peer_mb()
    share = 100 * spent / took
    print(f"`odograph edge`, {readings} readings in {took:.0f} s, one packet made, sealed and sent, {threads} threads")
    print(f"  memory: RSS {rss:.1f} MB (PSS {pss:.1f} MB); a bare twisted + autobahn process: {peer:.1f} MB;", end=" ")
    print(f"ratio {rss / peer:.2f}; aim: 70 MB")
    print(f"  CPU: {share:.2f} % of one core, {1000 * spent / max(1, readings):.2f} ms a reading; aim: 1 %")


if __name__ == "__main__":
    main()

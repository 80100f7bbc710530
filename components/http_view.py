"""A process seen from outside by HTTP: /metrics for Prometheus, /healthz and /readyz for its supervisor. Rim.

Reads only, asks nobody who they are, and tells nothing secret: no key, no place, no VIN. It is imported where an
address is configured and nowhere else, as an agent that lives in a car for years need not carry a web server.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from components.metrics import Metric, Pulse, View

_TEXT: Final = "text/plain; charset=utf-8"
_IDLE_S: Final = 30
Answer = tuple[int, str, bytes]


def listen(reactor: Any, address: str, view: View, pulse: Pulse) -> IListeningPort:  # noqa: ANN401 - many interfaces
    """Serve at `HOST:PORT`.

    Raises:
        CannotListenError: Another program has that port, or this machine not that host.
    """
    host, _, port = address.rpartition(":")
    root: Any = Resource()  # type: ignore[no-untyped-call]

    async def metrics() -> Answer:
        return 200, CONTENT_TYPE_PLAIN_0_0_4, text(await view.metrics())

    async def health() -> Answer:
        return _verdict([pulse.sick(reactor.seconds(), view.patience_s)])

    async def readiness() -> Answer:
        return _verdict([pulse.sick(reactor.seconds(), view.patience_s), *view.unready()])

    for path, answer in ((b"metrics", metrics), (b"healthz", health), (b"readyz", readiness)):
        root.putChild(path, _Page(answer))
    site: Any = Site(root, timeout=_IDLE_S)  # type: ignore[no-untyped-call]
    # Twisted's own log of each request would be a line every few seconds for ever.
    site.log = lambda _request: None
    port_: IListeningPort = reactor.listenTCP(int(port), site, interface=host.strip("[]"))
    return port_


def text(metrics: Sequence[Metric]) -> bytes:
    """Return metrics, and what the process takes of its machine, in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Counted(metrics))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Counted(Collector):
    """Hands prometheus_client what was counted."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Family]:
        for metric in self._metrics:
            form = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = form(metric.name, metric.words, labels=metric.by)
            for labels, value in metric.values.items():
                family.add_metric(labels, value)
            yield family


class _Page(Resource):
    """One answer, made when it is asked for."""

    def __init__(self, answer: Callable[[], Awaitable[Answer]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answer = answer
        self._log = Logger()

    def render_GET(self, request: Request) -> int:  # noqa: N802 - Twisted's name
        """See Resource."""
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        ensureDeferred(self._reply(request, gone)).addErrback(lambda failure: self._log.failure("no answer", failure))
        return NOT_DONE_YET

    async def _reply(self, request: Request, gone: Sequence[object]) -> None:
        try:
            code, kind, body = await self._answer()
        except Exception:  # noqa: BLE001 - who asked is told, and nothing else changes
            self._log.failure("metrics could not be counted")
            code, kind, body = 500, _TEXT, b"see the log\n"
        if not gone:
            request.setResponseCode(code)
            request.setHeader(b"content-type", kind.encode())  # type: ignore[no-untyped-call]
            request.setHeader(b"content-length", b"%d" % len(body))  # type: ignore[no-untyped-call]
            request.write(body)  # type: ignore[no-untyped-call]
            request.finish()  # type: ignore[no-untyped-call]


def _verdict(faults: Sequence[str]) -> Answer:
    found = [fault for fault in faults if fault]
    return (503, _TEXT, "".join(f"{fault}\n" for fault in found).encode()) if found else (200, _TEXT, b"ok\n")

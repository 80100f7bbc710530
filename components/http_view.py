"""A process seen from outside by HTTP: /metrics for Prometheus, /healthz and /readyz for its supervisor. Rim.

Reads only, asks nobody who they are, and tells nothing secret: no key, no place, no VIN. Who asks can keep it neither
from its work nor busy: few connections at once, none for long, and nothing is kept of what they send. It is imported
where an address is configured and nowhere else, as an agent that lives in a car for years need not carry a web server.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from components.metrics import Metric, Pulse, View

_TEXT: Final = "text/plain; charset=utf-8"
_MOST: Final = 32
"""Connections at once: each is a file descriptor of the process whose work is another."""
_LONGEST_S: Final = 30
"""A connection is cut then, whatever it does: one byte every few seconds would keep it for ever."""
Answer = tuple[int, str, bytes]


def listen(reactor: Any, address: str, view: View, pulse: Pulse) -> IListeningPort:  # noqa: ANN401 - many interfaces
    """Serve at `HOST:PORT`.

    Raises:
        CannotListenError: Another program has that port, or this machine not that host.
    """
    host, _, port = address.rpartition(":")

    async def metrics() -> Answer:
        return 200, CONTENT_TYPE_PLAIN_0_0_4, text(await view.metrics())

    async def health() -> Answer:
        return _verdict([pulse.sick(reactor.seconds(), view.patience_s)])

    async def readiness() -> Answer:
        return _verdict([pulse.sick(reactor.seconds(), view.patience_s), *view.unready()])

    pages = _Pages({b"/metrics": metrics, b"/healthz": health, b"/readyz": readiness})
    site: Any = Site(pages, requestFactory=_Request)  # type: ignore[no-untyped-call]
    # Twisted's own log of each request would be a line every few seconds for ever.
    site.log = lambda _request: None
    port_: IListeningPort = reactor.listenTCP(int(port), _FewAndShort(site, reactor), interface=host.strip("[]"))
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


async def _nothing_here() -> Answer:
    return 404, _TEXT, b"here are /metrics, /healthz and /readyz\n"


async def _not_so() -> Answer:
    return 405, _TEXT, b"ask by GET\n"


class _Pages(Resource):
    """An answer for each path, made when it is asked for."""

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, answers: Mapping[bytes, Callable[[], Awaitable[Answer]]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answers = answers
        self._log = Logger()

    def render(self, request: Request) -> int:
        """See Resource."""
        answer = self._answers.get(request.path, _nothing_here)
        if answer is not _nothing_here and request.method not in {b"GET", b"HEAD"}:
            request.setHeader(b"allow", b"GET, HEAD")  # type: ignore[no-untyped-call]
            answer = _not_so
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        replied = ensureDeferred(self._reply(request, answer, gone))
        replied.addErrback(lambda failure: self._log.failure("no answer", failure))
        return NOT_DONE_YET

    async def _reply(self, request: Request, answer: Callable[[], Awaitable[Answer]], gone: Sequence[object]) -> None:
        try:
            code, kind, body = await answer()
        except Exception:  # noqa: BLE001 - who asked is told, and nothing else changes
            self._log.failure("metrics could not be counted")
            code, kind, body = 500, _TEXT, b"see the log\n"
        if not gone:
            request.setResponseCode(code)
            request.setHeader(b"content-type", kind.encode())  # type: ignore[no-untyped-call]
            request.setHeader(b"content-length", b"%d" % len(body))  # type: ignore[no-untyped-call]
            request.write(body)  # type: ignore[no-untyped-call]
            request.finish()  # type: ignore[no-untyped-call]


class _Request(Request):
    """A request whose body is thrown away as it comes: Twisted would write it to a file, of any length."""

    def gotLength(self, length: int | None) -> None:  # noqa: N802, ARG002 - Twisted's name and signature
        """See Request."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """See Request."""


class _FewAndShort(WrappingFactory):
    """Lets `_MOST` connections be at once, each for `_LONGEST_S`."""

    noisy = False
    """Twisted would log that it starts, under an address in memory."""

    def __init__(self, site: Site, reactor: Any) -> None:  # noqa: ANN401 - as in `listen`
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._ends: dict[ProtocolWrapper, Any] = {}

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802, ANN401 - Twisted's name and types
        """See WrappingFactory; None has the connection closed at once."""
        return super().buildProtocol(addr) if len(self._ends) < _MOST else None

    def registerProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802 - Twisted's name
        """See WrappingFactory."""
        super().registerProtocol(p)  # type: ignore[no-untyped-call]
        self._ends[p] = self._reactor.callLater(_LONGEST_S, p.abortConnection)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:  # noqa: N802 - Twisted's name
        """See WrappingFactory."""
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        if (end := self._ends.pop(p)).active():
            end.cancel()


def _verdict(faults: Sequence[str]) -> Answer:
    found = [fault for fault in faults if fault]
    return (503, _TEXT, "".join(f"{fault}\n" for fault in found).encode()) if found else (200, _TEXT, b"ok\n")

"""The agent of one car, wired: sources, recorder, compactor, outbox, link. Wiring, nothing else.

`edge_component` makes of it an Autobahn component for any client runner:
`autobahn.twisted.component.run([edge_component(config)])`. Recording begins when the component starts, not when the
router is there.
"""

import random
import secrets
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, Final

from autobahn.twisted.wamp import ApplicationSession
from Crypto.PublicKey import ECC
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from components import keyfile, wamp_transport
from components.bounded_file import read_text
from components.durable_file import replace_file
from components.edge import at_modem, dbus_modem, errand, power_command, sqlite_spool
from components.edge.choice import Choice
from components.edge.compactor import Sealer, SigningKey
from components.edge.config import EdgeConfig
from components.edge.device import Device
from components.edge.gear import Gearbox
from components.edge.gpsd_gps import GpsdGps
from components.edge.obd_car import ObdCar
from components.edge.outside import Outside
from components.edge.ports import Sim
from components.edge.power import Order, Power
from components.edge.recorder import Recorder, Sources
from components.edge.sim_identity import KnownSim
from components.edge.spool import Spool
from components.edge.sqlite_outbox import Waiting
from components.edge.system_clock import elapsed_ms, elapsed_s, network_time, system_time
from components.edge.timeline import Timeline
from components.edge.trust import Trust
from components.edge.uplink import Uplink
from components.edge.usb_ports import find_modem_port
from components.edge.wamp_link import WampLink
from components.edge.wamp_trust import WampTrust
from components.keyfile import KeyFile
from components.lane import Lane
from components.lasting_component import LastingComponent
from components.wire import bundle
from components.wire.errors import ConfigError, UnavailableError

_DRAIN_S: Final = 30.0
_AWAY_S: Final = 3.0
_SIM_EVERY_S: Final = 60.0
_SIM_MS: Final = 15_000
_TIDY_EVERY_S: Final = 600.0
_LOOK_EVERY_S: Final = 60.0
_LONGEST_SPREAD_S: Final = 30.0


class Agent:
    """Everything of one car but the connection to the router.

    Attributes:
        signing: The key that packets are signed with from now on.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - a reactor is many interfaces
        config: EdgeConfig,
        turned: Callable[[], object] = lambda: None,
    ) -> None:
        self.signing = _signing_key(keyfile.read_key_file(config.device.key))
        trust = Trust(bundle.parse(_text(config)), config.server.suite)
        self._lock = sqlite_spool.lock(config.spool.dir)
        self._reactor, self._config, self._turned = reactor, config, turned
        self._log = Logger()
        self._detach = partial(errand.detach, self._log)
        self._car_lane, self._modem_lane = Lane(reactor, "car"), Lane(reactor, "modem")
        self._started_ms = elapsed_ms()
        sealer = Sealer(lambda: trust.sealing, lambda: self.signing, secrets.token_bytes)
        self._spool = Spool(
            reactor, config.spool.dir, config.spool.keep_ms, config.spool.max_bytes, config.device.id, sealer
        )
        self.link = WampLink(
            reactor,
            config.device.id,
            self._make_uplink(),
            self._spool.outbox,
            self._spool.outbox_lane,
            WampTrust(reactor, trust, partial(_keep_bundle, config), self._spool.outbox_lane),
            self.ran_ms,
            self._spool.remake,
        )
        self._gps = GpsdGps(reactor, config.gps.gpsd, elapsed_ms) if config.gps.gpsd else None
        self._recorder = self._make_recorder()
        self.device = Device(
            config.device.id,
            version("odograph"),
            self._recorder,
            self.link,
            self._spool.outbox,
            self._spool.outbox_lane,
            elapsed_ms,
            self._started_ms,
        )
        self.outside = Outside(self.device, self._spool.lost)
        self._known_sim = KnownSim()
        self._recording: Deferred[None] | None = None
        self._packed = False
        self._loops = [
            (LoopingCall(self._detach, self._spool.tidy, "retention failed"), _TIDY_EVERY_S),
            (LoopingCall(self._detach, self._tidy_if_over, "retention failed"), _LOOK_EVERY_S),
            (LoopingCall(self._detach, self._ask_sim, "the modem's driver failed"), _SIM_EVERY_S),
        ]
        if config.power.command:
            # Now, while somebody may be looking; it is run without anybody there.
            power_command.is_there(config.power.command)

    def start(self) -> None:
        """Begin to record, and to take up what an earlier run left behind."""
        for lane in (self._car_lane, self._modem_lane):
            lane.start()
        self._spool.start(self)
        if self._gps is not None:
            self._gps.start()
        self._recording = ensureDeferred(self._recorder.run())
        self._recording.addErrback(self._recording_failed)
        for loop, every_s in self._loops:
            loop.clock = self._reactor
            loop.start(every_s)

    async def finish(self) -> None:
        """Close the packet in hand, deliver for at most 30 s (3 s while no router is there), let go of everything."""
        self._recorder.stop()
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        if self._recording is not None:
            await self._recording
        pack = partial(self._spool.compact, closing=True)
        await errand.attempt(self._log, pack, "the packet in hand waits for the next run")
        await self.link.drained(_DRAIN_S, _AWAY_S)
        self.link.end()
        if self._gps is not None:
            await self._gps.stop()
        # The car is used from its lane's thread only, and a call that overran may still be in it.
        await self._car_lane.run(self._recorder.sources.car.close)
        for lane in (self._car_lane, self._modem_lane):
            await lane.close()
        await self._spool.end()
        self.close()

    def close(self) -> None:
        """Let go of the files and the spool."""
        self._spool.close()
        self._lock.release()

    def moment(self) -> tuple[str, int]:
        """Return session and time (ms UTC) of what is recorded now."""
        timeline = self._recorder.timeline
        return timeline.session, timeline.at(elapsed_ms())

    def begin_session(self) -> None:
        """Readings go to a new file from now on."""
        self._recorder.begin_session()

    def ran_ms(self) -> int:
        """Return for how long agents ran."""
        return self._spool.outbox.ran_ms + elapsed_ms() - self._started_ms

    def kept(self, packets: list[Waiting], *, fresh: bool) -> None:
        """Packets wait to be sent."""
        self.link.kept(packets, fresh=fresh)

    def begin_outbox(self) -> None:
        """Packets are in a new file from now on."""
        self.link.begin_outbox(self._make_uplink())

    def tell(self, name: str, what: dict[str, object]) -> None:
        """Tell operators that something happened."""
        self.link.tell(name, what)

    def _make_uplink(self) -> Uplink:
        return Uplink(min(self._config.packet.period_s / 2, _LONGEST_SPREAD_S), random.random)

    def _make_recorder(self) -> Recorder:
        config, vehicle = self._config, self._config.vehicle
        newest = self._spool.writer.last("reading")
        gearbox = None
        if vehicle.gear_ratios and vehicle.final_drive and vehicle.circumference_m:
            gearbox = Gearbox(vehicle.gear_ratios, vehicle.final_drive, vehicle.circumference_m)
        choice = Choice(config.signals.wanted, config.signals.rates)
        car = ObdCar(
            config.obd.port,
            config.obd.baud,
            config.obd.protocol,
            clock=elapsed_ms,
            # With "auto" the modem is looked for, and kept out, afresh at each connection.
            not_ports=[config.modem.port] if config.modem.port not in {"", "auto"} else [],
            period_ms=config.sampling.interval_ms,
            wanted=choice.asked,
            rates=choice.car_rates,
        )
        return Recorder(
            reactor=self._reactor,
            elapsed_ms=elapsed_ms,
            sources=Sources(
                car,
                self._gps,
                gearbox,
                config.sampling.interval_ms,
                config.packet.period_s,
                config.packet.content,
                config.hash,
                choice,
            ),
            car_lane=self._car_lane,
            file_lane=self._spool.file_lane,
            journal=self._spool.writer,
            timeline=Timeline.begun(_new_session(), system_time(), newest.at_ms if newest is not None else None),
            new_session=_new_session,
            closed=lambda: self._detach(self._spool.compact, "compaction failed"),
            changed=self._codes_changed,
            power=Power(config.power.limits, self._started_ms),
            power_changed=self._power_changed,
            sent=lambda: self._packed and self.link.uplink.idle,
            network_time=network_time,
            turned=self._turned,
        )

    async def _tidy_if_over(self) -> None:
        if self._spool.is_over():
            await self._spool.tidy()

    async def _pack_last(self, session: str) -> None:
        await self._spool.compact(ended=session)
        self._packed = True

    async def _ask_sim(self) -> None:
        answer = await self._modem_lane.run(self._read_sim)
        self._recorder.sim = self._known_sim.heard(answer, elapsed_ms())

    def _read_sim(self) -> Sim:
        """Ask who owns the modem, wherever it is now: some appear long after the agent's start."""
        configured = self._config.modem.port
        if not configured:
            return Sim()
        port, deadline_ms = find_modem_port() if configured == "auto" else configured, elapsed_ms() + _SIM_MS
        sim = dbus_modem.read_sim(port, deadline_ms, clock=elapsed_ms)
        if sim is None and port is not None:
            sim = at_modem.read_sim(port, deadline_ms, clock=elapsed_ms)
        return sim or Sim()

    def _codes_changed(self, appeared: tuple[Any, ...], cleared: tuple[Any, ...]) -> None:
        for name, codes in (("dtc_appeared", appeared), ("dtc_cleared", cleared)):
            for one in codes:
                self.link.tell(name, {"code": one.code, "status": one.status, "ecu": one.ecu})

    def _power_changed(self, order: Order) -> None:
        power, session = self._recorder.power, self._recorder.timeline.session
        if order == "command":
            if self._config.power.command:
                power_command.run(self._reactor, self._config.power.command)
            return
        state = "asleep" if order == "sleep" else "awake"
        self._log.info("the car is {state}, {voltage_v} V at its plug", state=state, voltage_v=power.voltage_v)
        self.link.tell(state, {"voltage_v": power.voltage_v})
        self._packed = False
        if order == "sleep":
            self._detach(lambda: self._pack_last(session), "the packet in hand waits for the car to wake")

    def _recording_failed(self, failure: Any) -> None:  # noqa: ANN401 - twisted's Failure
        self._log.failure("recording ended", failure)


class EdgeComponent(LastingComponent):
    """The agent as an Autobahn component; it records whether a router is there or not."""

    def __init__(self, config: EdgeConfig) -> None:
        transport = {
            **wamp_transport.transport(config.router.url, config.router.ca),
            "initial_retry_delay": 1.0,
            "max_retry_delay": 60.0,
            "options": {"auto_ping_interval": 20, "auto_ping_timeout": 20, "open_handshake_timeout": 10},
        }
        words = "recording goes on, and so do the attempts"
        super().__init__(
            config.router.realm, config.device.key, transport, words, config.metrics.listen, config.router.ca
        )
        if (self.key.authid, self.key.role) != (config.device.id, "device"):
            whose = f"{self.key.authid}, {self.key.role}, not of {config.device.id}, device"
            raise ConfigError(f"device.key: {config.device.key} is the key of {whose}")
        self._config = config
        self._agent: Agent | None = None

    async def begin(self, reactor: Any) -> None:  # noqa: ANN401 - a reactor is many interfaces
        """Record."""
        # Twisted's timers follow the wall clock, which may jump by years in a car; these follow elapsed time.
        reactor.seconds = elapsed_s
        self._agent = Agent(reactor, self._config, lambda: self.pulse.beat(elapsed_s()))
        self._agent.start()

    def view(self) -> Outside:
        """Return the agent, seen from outside."""
        if self._agent is None:
            raise UnavailableError("the agent has not begun")
        return self._agent.outside

    async def attend(self, session: ApplicationSession) -> None:
        """Deliver, and answer operators."""
        if self._agent is not None:
            await self._agent.link.attend(session, self._agent.device)

    def rekeyed(self, key: KeyFile) -> None:
        """Sign with it too; the server has it already."""
        if self._agent is not None:
            self._agent.signing = _signing_key(key)

    async def end(self) -> None:
        """Close the packet in hand, deliver for at most 30 s."""
        if self._agent is not None:
            await self._agent.finish()


def edge_component(config: EdgeConfig) -> EdgeComponent:
    """Return the agent of the device that `config` describes, for any client runner.

    Raises:
        OperatorError: A key file or the server bundle is missing or wrong.
    """
    return EdgeComponent(config)


def _signing_key(key: KeyFile) -> SigningKey:
    # The stub wants text; pycryptodome wants bytes.
    seed: Any = bytes.fromhex(key.private_key)
    return SigningKey(bundle.key_id(bytes.fromhex(key.public_key)), ECC.construct(curve="Ed25519", seed=seed))


def _text(config: EdgeConfig) -> str:
    return read_text(config.server.bundle, bundle.MAX_BYTES, "[server] bundle names it")


def _keep_bundle(config: EdgeConfig, text: str) -> None:
    replace_file(config.server.bundle, text.encode())


def _new_session() -> str:
    return secrets.token_hex(8)

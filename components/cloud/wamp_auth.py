"""The gate: who gets in at the router, what they may do there, and when they must go. Rim.

Crossbar embeds it in its router worker and calls it in its reactor's thread: `authenticate` reads a few rows of a local
file per join, `authorize` only computes, and once a second it looks whether the registry has changed, and who is
connected: a session that rests on something that holds no more is ended, and who does not join is cut off. What it
refuses goes into the router's own audit log. It never waits for another's lock on a file: the whole router would.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from autobahn.twisted.util import peer2str
from autobahn.twisted.wamp import ApplicationSession
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import ComponentConfig, EventDetails, SubscribeOptions
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import LoopingCall, deferLater

from components.cloud.last_words import leave_last_words
from components.cloud.permissions import PEER_ROLES, allowed
from components.cloud.refusals import Note, Refusals, Waiting
from components.cloud.sqlite_audit import AuditLog, Head, router_audit
from components.cloud.sqlite_registry import Registry
from components.cloud.strangers import Strangers, host
from components.cloud.tries import FORGOTTEN_MS, Tries
from components.cloud.who import Standing
from components.wamp_procedure import UNAVAILABLE
from components.wire import topics
from components.wire.enrolment import ticket_sha256
from components.wire.errors import ConfigError, OdographError, UnavailableError
from components.wire.topics import AUTHENTICATE, AUTHORIZE, REALM

REFUSED: Final = ApplicationError.AUTHENTICATION_FAILED
ENDED: Final = "odograph.error.session_ended"
LOOK_EVERY_S: Final = 1
_PROVE_S: Final = 30
_LOOKS_A_MINUTE: Final = 60
_TRY_AGAIN_S: Final = (0.1, 0.2, 0.4, 0.8)
"""So long a join waits, again and again, while another has a lock on the registry."""
_MOST_SESSIONS: Final = 100
"""So many sessions one key may have, but a persister's; who has stolen one must not fill the router with it."""
_Found = tuple[Standing | None, dict[str, str]]
"""On what a session rests; or why there is none."""
T = TypeVar("T")
_CLEAR_STEPS: Final = ("prepare_clear", "clear_begun", "clear_outcome", "clear_refused")


@dataclass(slots=True)
class _Peer:
    """A session that was let in, or that has yet to prove its key."""

    authid: str
    standing: Standing
    peer: str
    since_s: float
    ending: bool = False

    def is_named(self, details: Mapping[str, Any]) -> bool:
        """Tell whether Crossbar's session has this name and role; a client may say hello twice."""
        return (details["authid"], details["authrole"]) == (self.authid, self.standing.role)


class Gate(ApplicationSession):
    """The authenticator and the authorizer of the node, and the watch over its sessions.

    `extra.registry` is the path of registry.db, relative to the node's directory (cbdir); the audit log is beside it.
    """

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        try:
            self._path = _registry_path(config.extra)
            Registry.open(self._path).close()
            self._audit = AuditLog.open(router_audit(self._path), write=True, busy_s=0)
        except OdographError as error:
            # Here and not in onJoin: Crossbar goes on, admitting nobody, after an error there.
            leave_last_words(f"odograph: {error}")
            raise
        self._refusals = Refusals()
        self._unwritable = ""
        self._waiting = Waiting()
        self._strangers = Strangers()
        self._tries = Tries()
        self._take_up_tries()
        self._head = Head(0, "")
        self._joined: dict[int, _Peer] = {}
        self._proving: dict[int, _Peer] = {}
        self._looks = 0
        self._trouble = ""
        self._watch = LoopingCall(self._look)

    def _take_up_tries(self) -> None:
        """Count the wrong tickets of just before the start."""
        # What was changed by hand is for `odograph audit verify` to say.
        with suppress(OdographError):
            for entry in self._audit.since(_now_ms() - FORGOTTEN_MS):
                code, count = entry.detail.get("code"), entry.detail.get("count")
                if entry.action == "join.refused" and isinstance(code, str) and isinstance(count, int):
                    self._tries.wrong(code, entry.by, entry.at_ms, count)

    async def onJoin(self, _details: object) -> None:  # noqa: N802 - Autobahn's name
        """Begin to watch, then offer the two procedures; the router admits nobody before that."""
        await self.subscribe(self._on_join, "wamp.session.on_join")
        await self.subscribe(self._on_leave, "wamp.session.on_leave")
        options = SubscribeOptions(match="prefix", details_arg="details")
        await self.subscribe(self._on_event, topics.EVENT_PREFIX, options=options)
        self._watch.start(LOOK_EVERY_S)
        await self.register(self.authorize, AUTHORIZE)
        await self.register(self.authenticate, AUTHENTICATE)

    async def authenticate(self, realm: str, authid: str, details: Mapping[str, Any]) -> dict[str, object]:
        """Return who the peer is, with the key that Crossbar then makes it prove; ApplicationError when it is nobody.

        One answer for every reason (unknown, revoked, another key), so that nobody learns who exists; the log has it.
        """
        method, peer = details.get("authmethod"), _peer(details)
        try:
            standing, why = await self._ask(lambda registry: self._find(registry, authid, details))
        except OdographError as error:
            self.log.warn("refused {authid!r}: {error}", authid=authid, error=error)  # noqa: G010 - txaio's name
            message = "the registry cannot be read now: try again"
            raise ApplicationError(UNAVAILABLE, message) from error
        if standing is None or realm != REALM:
            self._refuse_join(peer, str(authid), **(why or {"reason": "wrong_realm"}))
            raise ApplicationError(REFUSED, f"nobody active is called {authid!r} and has that key")
        self._proving[details["session"]] = _Peer(authid, standing, peer, time.monotonic())
        key = {} if method == "ticket" else {"pubkey": standing.key}
        return {"realm": REALM, "authid": authid, "role": standing.role, "extra": {}, **key}

    def authorize(
        self, details: Mapping[str, Any], uri: str, action: str, options: Mapping[str, object]
    ) -> dict[str, bool]:
        """Return Crossbar's authorization.

        `disclose`: packets and calls carry the id that the router authenticated. `cache` must stay off: Crossbar's
        cache key has no id in it, so that one device's yes would serve another.
        """
        peer = self._peer(details["session"])
        allow = (
            peer is not None
            and peer.is_named(details)
            and not peer.ending
            and not _is_past(peer.standing)
            and allowed(peer.standing.role, peer.authid, uri, action, options or {}, peer.standing.reach)
        )
        who, role = str(details["authid"]), str(details["authrole"])
        if not allow:
            self._note(Note.of("action.refused", who, f"{action} {uri}", who, role=role))
        elif action == "call" and uri.endswith((".prepare_clear", ".clear_dtcs")):
            self._note(Note.of("clear.called", who, uri, who, role=role))
        return {"allow": allow, "disclose": True, "cache": False}

    async def _ask(self, question: Callable[[Registry], T]) -> T:
        """Ask the registry; UnavailableError when another holds a lock on it for longer than a join can wait."""
        for pause_s in _TRY_AGAIN_S:
            with suppress(UnavailableError), Registry.open(self._path, busy_s=0) as registry:
                return question(registry)
            await deferLater(self._watch.clock, pause_s)
        with Registry.open(self._path, busy_s=0) as registry:
            return question(registry)

    def _find(self, registry: Registry, authid: str, details: Mapping[str, Any]) -> _Found:
        """Return on what the session of a peer rests."""
        if not (isinstance(authid, str) and topics.is_id(authid)):
            return None, {"reason": "unknown"}
        try:
            if details.get("authmethod") == "ticket":
                return self._by_ticket(registry, authid, details.get("ticket"), host(_peer(details)))
            return _by_key(registry, authid, details.get("authextra"))
        except ConfigError as error:
            self.log.warn("{error}", error=error)  # noqa: G010 - txaio's name
            return None, {"reason": "unsound_row"}

    def _by_ticket(self, registry: Registry, authid: str, ticket: object, address: str) -> _Found:
        """Return on what the session of a device that enrols rests, or why there is none."""
        now_ms = _now_ms()
        standing = registry.enrolling(authid, now_ms)
        if standing is None:
            return None, {"reason": "no_code"}
        # Counted by code: a new one has tries of its own.
        code = standing.key[:16]
        if not self._tries.are_left(code, address, now_ms):
            return None, {"reason": "too_many_tries"}
        if not isinstance(ticket, str) or not ticket.isascii() or ticket_sha256(ticket) != standing.key:
            self._tries.wrong(code, address, now_ms)
            return None, {"reason": "wrong_ticket", "code": code}
        return standing, {}

    def _peer(self, session: int) -> _Peer | None:
        """Return who has this session; a first action may come before the word of its join."""
        proved = self._proving.pop(session, None)
        if proved is not None:
            self._joined.setdefault(session, proved)
        return self._joined.get(session)

    def _on_join(self, details: Mapping[str, Any], *_: object, **__: object) -> None:
        """Take a session up, or end one that nobody let in: Crossbar welcomes who repeats a proof after a goodbye."""
        session, role = details["session"], details["authrole"]
        peer = self._peer(session)
        if role in PEER_ROLES and (peer is None or not peer.is_named(details)):
            authid = str(details["authid"])
            nobody = self._joined[session] = _Peer(authid, Standing("", ""), _peer(details), time.monotonic())
            self._end(session, nobody, "not_let_in")

    def _on_leave(self, session: int, *_: object, **__: object) -> None:
        """Forget a session; nobody else can say that a device is away, least of all the device."""
        gone = self._joined.pop(session, None)
        self._proving.pop(session, None)
        if gone is None or gone.standing.role != "device":
            return
        if not any(peer.authid == gone.authid and not peer.ending for peer in self._joined.values()):
            self.publish(topics.event(gone.authid), {"event": "offline", "device": gone.authid})

    def _on_event(self, *args: Any, details: EventDetails, **_: object) -> None:  # noqa: ANN401 - what a device said
        """Keep what a device says of a clearing: who asked, and what came of it."""
        told = args[0] if args and isinstance(args[0], Mapping) else {}
        step = told.get("step")
        if details.publisher_authrole == "device" and told.get("event") == "clear" and step in _CLEAR_STEPS:
            more = {key: str(told[key]) for key in ("role", "outcome", "reason") if key in told}
            more["operator"] = str(told.get("by"))
            device = str(details.publisher_authid)
            self._note(Note.of(f"car.{step}", device, str(details.topic), device, **more))

    def _look(self) -> None:
        """Look after everything; whatever fails, the next look comes."""
        self._looks += 1
        for work in (self._watch_sessions, self._cut_strangers, self._write_held):
            try:
                work()
            except Exception:  # noqa: BLE001 - a LoopingCall would end, and nobody would be shut out any more
                self.log.failure("{work} failed", work=work.__name__)

    def _watch_sessions(self) -> None:
        """End what may not go on."""
        trouble = ""
        try:
            self._end_what_holds_no_more()
        except OdographError as error:
            trouble = str(error)
        if trouble != self._trouble:
            self.log.warn("watching sessions: {trouble}", trouble=trouble or "goes on")  # noqa: G010 - txaio's name
        self._trouble = trouble
        for session, peer in list(self._proving.items()):
            if time.monotonic() - peer.since_s > _PROVE_S:
                del self._proving[session]
                self._refuse_join(peer.peer, peer.authid, reason="no_proof")

    def _cut_strangers(self) -> None:
        """Cut connections off that have no session; Crossbar knows no limit for them."""
        reactor: Any = self._watch.clock
        connections = [one for one in reactor.getReaders() if ITCPTransport.providedBy(one)]
        connected: dict[str, Any] = {peer2str(one): one for one in connections}
        joined = {peer.peer for peer in self._joined.values()}
        for peer, why in self._strangers.seen(connected, joined, time.monotonic()).items():
            connected[peer].abortConnection()
            self._note(Note.of("connection.cut", host(peer), "", reason=why))

    def _write_held(self) -> None:
        self._write(self._refusals.minute() if self._looks % _LOOKS_A_MINUTE == 0 else [])

    def _end_what_holds_no_more(self) -> None:
        living = Counter(peer.authid for peer in self._joined.values() if not peer.ending)
        for session, peer in list(self._joined.items()):
            if peer.ending:
                # It was asked to go a second ago and is still there.
                self._cut(session)
            elif _is_past(peer.standing):
                self._end(session, peer, "expired")
            elif living[peer.authid] > _MOST_SESSIONS and peer.standing.role != "persister":
                # The oldest go: those may be half-open.
                living[peer.authid] -= 1
                self._end(session, peer, "too_many_sessions")
        with Registry.open(self._path, busy_s=0) as registry:
            head = registry.audit.head()
            if head == self._head:
                return
            changed = registry.audit.subjects_since(self._head)
            for session, peer in list(self._joined.items()):
                # A limited operator's reach may change with any device.
                if not peer.ending and (changed is None or peer.authid in changed or peer.standing.reach is not None):
                    self._look_at(registry, session, peer)
            self._head = head

    def _look_at(self, registry: Registry, session: int, peer: _Peer) -> None:
        find = registry.enrolling if peer.standing.role == "enrolling" else registry.standing
        try:
            now = find(peer.authid, _now_ms())
        except ConfigError:
            now = None  # its row is unsound and vouches for nobody; the others are looked at all the same
        if now is not None and peer.standing.holds(now):
            peer.standing = now
        else:
            self._end(session, peer, "changed")

    def _end(self, session: int, peer: _Peer, why: str) -> None:
        """Ask a session to go; from now on it may do nothing."""
        peer.ending = True
        self._note(Note.of("session.ended", "router", peer.authid, peer.authid, reason=why))
        message = "what the registry says of you has changed, or your time is over"
        ending = ensureDeferred(self._kill(session, message))
        ending.addErrback(lambda failure: self.log.failure("{authid} not ended", failure, authid=peer.authid))

    async def _kill(self, session: int, message: str) -> None:
        await self.call("wamp.session.kill", session, reason=ENDED, message=message)

    def _cut(self, session: int) -> None:
        """Cut the connection of a session that does not leave: it would go on hearing and answering."""
        # Crossbar has no procedure for that, and its router holds the sessions by number.
        transport: Any = self._transport
        sessions = transport._router._session_id_to_session  # noqa: SLF001 - see above
        if session in sessions:
            sessions[session]._transport.abort()  # noqa: SLF001 - see above

    def _refuse_join(self, peer: str, authid: str, **why: str) -> None:
        self._note(Note.of("join.refused", host(peer), authid, **why))

    def _note(self, note: Note) -> None:
        more = dict(note.more)
        self.log.warn("{what} {whom!r} by {by} {more}", what=note.what, whom=note.whom, by=note.by, more=more)  # noqa: G010
        self._write(self._refusals.noted(note))

    def _write(self, notes: list[tuple[Note, int]]) -> None:
        """Write notes, those first that could not be written before: the disk may have been full."""
        self._waiting.add(_now_ms(), notes)
        trouble = ""
        try:
            self._waiting.drain(self._append)
        except OdographError as error:
            trouble = str(error)
            if trouble != self._unwritable:
                self.log.warn("entries wait for the audit log: {error}", error=trouble)  # noqa: G010 - txaio's name
        self._unwritable = trouble

    def _append(self, at_ms: int, note: Note, count: int) -> None:
        self._audit.append(at_ms, note.what, note.by, note.whom, note.detail(count))


def _registry_path(extra: Mapping[str, object]) -> Path:
    """Return where the node's configuration says that registry.db is; ConfigError where it does not say it."""
    path = extra.get("registry")
    if not isinstance(path, str) or not path or "\0" in path:
        where = "router/.crossbar/config.yaml: components: extra"
        raise ConfigError(f"{where} names no registry", "write {registry: PATH}, the path of registry.db")
    return (Path(str(extra["cbdir"])) / path).resolve()


def _by_key(registry: Registry, authid: str, extra: object) -> _Found:
    """Return on what the session of a peer rests that claims a public key, or why there is none."""
    pubkey = str(extra.get("pubkey") or "").lower() if isinstance(extra, Mapping) else ""
    standing = registry.standing(authid, _now_ms())
    if standing is not None:
        return (standing, {}) if pubkey == standing.key else (None, {"reason": "wrong_key"})
    device, one = registry.device(authid), registry.principal(authid)
    if device is not None:
        return None, {"reason": f"{device.state}_device"}
    return None, {"reason": "unknown" if one is None else "revoked" if one.state != "active" else "expired"}


def _is_past(standing: Standing) -> bool:
    return standing.expires_ms is not None and _now_ms() >= standing.expires_ms


def _peer(details: Mapping[str, Any]) -> str:
    """Return the other end of a session's connection: `tcp4:127.0.0.1:40001`."""
    return str((details.get("transport") or {}).get("peer") or "?:?:?")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""`LiveRisk`: moves the priors with what is observed, and raises the alarm.

Before an exchange, take `priors`; after it, call `observe` with its evidence. Both are quick and
never wait for a store: where there is one that others read, a thread of its own delivers what
was seen in batches. A store that cannot be reached changes nothing for the judgement here: counts
go on, alarms are raised and stand, and everything is delivered later, once.

The evidence of tests and priors is a function of the exchanges in their order; the clock only
dates records. With several replicas it is a function of the batches in the order in which the
store took them in.

This module does not know classes, detectors or what a posture leads to.
"""

from __future__ import annotations

import atexit
import logging  # noqa: F401  # see `_hold_all`
import math
import os
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from guard.errors import InputError, LiveStoreError
from guard.live.alarms import Alarm, Transition, posture_of, raised
from guard.live.delivery import IDLE, keep_delivering
from guard.live.ledger import KEPT, MICRO, State, Tally
from guard.live.open_batch import OpenBatch
from guard.live.opening import clear_alarms
from guard.live.prior import Priors
from guard.live.profile import Profile
from guard.live.spool import Spool
from guard.live.state import LiveState, describe
from guard.live.stores import History, MemoryStore, Store, lost_alarms
from guard.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from guard.live.alarms import Notifier
    from guard.live.ledger import Batch
    from guard.live.operating import Operating
    from guard.live.settings import LiveSettings, Posture
    from guard.live.stores import Snapshot
    from guard.live.watch import Test

EVENTS: Final = {"raised": "guard.live.alarm_raised", "cleared": "guard.live.alarm_cleared"}
"""The log event of each transition. Names never change; what varies is in the fields."""

_PATIENCE: Final = 5.0
"""Seconds that closing waits for a delivery on its way."""

_T = TypeVar("_T")

_log = Log()


class LiveRisk:
    """Follows the live risk of one deployment. Safe to share between threads.

    A forked process is a replica of its own: it begins with what the store holds when it is
    first asked there, and the parent goes on with what the parent saw.

    Args:
        settings: the class's.
        start: each category's prior in (0, 1) to begin with: the tag's profile, else the class.
        confusion: for each category that is to be watched, what validation says about a
            threshold on its evidence. The others have a prior and no alarm.
        store: where the state is kept; by default in this object alone.
        notify: who is told of every transition, in this order, such as a webhook.
        clock: seconds since 1970; dates records and decides nothing.

    Raises:
        ConfigurationError: everything that is wrong with settings, priors and thresholds.
        LiveStoreError: the store cannot be reached. Without it nobody would know which alarms
            stand, so there is nothing to begin with.
    """

    def __init__(  # noqa: PLR0913  # each is one plain part of a deployment
        self,
        settings: LiveSettings,
        start: Mapping[str, float],
        *,
        confusion: Mapping[str, Operating],
        store: Store | None = None,
        notify: Sequence[Notifier] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Load what the store holds; deliver what a killed predecessor left."""
        self._profile = Profile(settings, start, confusion)
        self._watches = dict(self._profile.watches)
        self._slopes = {name: each.walks.slopes for name, each in self._watches.items()}
        self._store: Store = MemoryStore() if store is None else store
        self._notify = tuple(notify)
        self._clock = clock
        self._known = frozenset(self._profile.start)
        self._priors = Priors(self._profile.start, settings)
        self._limits = [(name, each.operating.threshold) for name, each in self._watches.items()]
        self._lock = threading.Lock()
        self._delivering = threading.Lock()
        self._open = self._new_batch()
        self._sealed: Batch | None = None
        self._base = State()
        self._alarms: dict[str, Alarm] = {}
        self._lives: dict[str, int] = {}
        self._transitions: deque[Transition] = deque(maxlen=KEPT)
        self._points: deque[Mapping[str, Any]] = deque(maxlen=KEPT)
        self._thread: threading.Thread | None = None
        self._ends = threading.Event()
        self._looked = 0.0
        self._successor: LiveRisk | None = None
        self._joining = threading.Lock()
        self._forked = False
        self._closed = False
        self._spool: Spool | None = None
        self._tell(self._join())
        _all.add(self)

    @property
    def name(self) -> str:
        """The deployment's name."""
        return self._store.name

    @property
    def profile(self) -> Profile:
        """What it is counted under."""
        return self._profile

    @property
    def store(self) -> Store:
        """Where the state is kept."""
        return self._store

    @property
    def posture(self) -> Posture:
        """How the deployment stands: the most severe action of its standing alarms."""
        self._join_if_forked()
        with self._lock:
            return posture_of(self._alarms.values())

    @property
    def alarms(self) -> Mapping[str, Alarm]:
        """The alarms that stand, by category."""
        self._join_if_forked()
        with self._lock:
            return dict(self._alarms)

    def priors(self, conversation: str | None = None) -> Mapping[str, float]:
        """Return each category's live prior in (0, 1) for the next exchange.

        Within `start - fall` and `start + rise` of the settings, in log-odds, always.

        Args:
            conversation: which one the exchange belongs to; conversations are remembered in
                this process alone.
        """
        self._join_if_forked()
        with self._lock:
            return self._priors.within(conversation)

    def observe(
        self, evidence: Mapping[str, float], *, conversation: str | None = None
    ) -> tuple[Transition, ...]:
        """Take in an exchange; return the alarms that it raised.

        Args:
            evidence: the highest log likelihood ratio per category. A category that is left
                out was judged and nothing was found; what is no number counts as the worst.
            conversation: which one the exchange belongs to.

        Raises:
            InputError: a category without a prior, or it was closed.
        """
        if not self._known.issuperset(evidence):
            unknown = ", ".join(f"`{name}`" for name in sorted(set(evidence) - self._known))
            raise InputError(f"no prior to start from for {unknown}: add it to `start`")
        self._join_if_forked()
        transitions: tuple[Transition, ...] = ()
        with self._lock:
            self._refuse_if_closed()
            # What is no number is not below any threshold either.
            exceeded = [
                name
                for name, limit in self._limits
                if (value := evidence.get(name)) is not None and not value < limit
            ]
            unjudged = [name for name in exceeded if math.isnan(evidence[name])]
            chances = self._priors.update(evidence, conversation)
            self._open.count(chances, exceeded, unjudged)
            if self._spool is not None:
                self._spooled(lambda spool: spool.note(chances, exceeded, unjudged))
            if exceeded:
                self._keep_points(exceeded)
                transitions = self._judge(exceeded)
        if self._store.seconds is not None and self._thread is None:
            self._start_delivering()
        self._tell(transitions)
        if self._successor is not None and self._store.seconds is None:
            # No thread delivers to memory.
            self.flush()
        return transitions

    def state(self) -> LiveState:
        """Return priors, evidence over time, alarms and transitions as this replica knows them."""
        self._join_if_forked()
        with self._lock:
            view = State(
                self._exchanges,
                {name: round(mass * MICRO) for name, mass in self._masses().items()},
                {name: self._tally(name) for name in self._watches},
            )
            alarms = dict(self._alarms)
            history = History(tuple(self._transitions), tuple(self._points))
        return describe(self.name, self._profile, view, alarms, history)

    def clear(self, category: str, *, by: str, reason: str) -> tuple[Transition, ...]:
        """Clear a standing alarm, or all; its tests begin anew. Nothing else ever clears one.

        Args:
            category: whose alarm; `all` for every one.
            by: the person who clears it.
            reason: why it may be cleared.

        Raises:
            InputError: no such alarm stands, nobody, or no reason, is named, or it was closed.
            LiveStoreError: the store cannot be reached; the alarm stands.
        """
        self._refuse_if_closed()
        self._join_if_forked()
        with self._delivering:
            found = self._deliver()
            gone = clear_alarms(
                self._store, self.alarms, category, time=self._clock(), by=by, reason=reason
            )
            with self._lock:
                for transition in gone:
                    self._alarms.pop(transition.alarm.category, None)
                self._begin_lives({each.alarm.category: each.alarm.life + 1 for each in gone})
                self._transitions.extend(gone)
            found += self._adopt(self._store.read(self._profile.digest, self._replica))
        self._tell((*found, *gone))
        return gone

    def flush(self) -> None:
        """Deliver what was seen, and take in what others saw.

        Raises:
            InputError: it was closed.
            LiveStoreError: the store cannot be reached; nothing is lost.
        """
        self._refuse_if_closed()
        self._flush()

    def _flush(self) -> None:
        self._join_if_forked()
        with self._delivering:
            transitions = self._deliver()
        self._tell(transitions)
        if self._successor is not None:
            # It may be closed by now: what served last is closed first.
            self._successor._flush()  # noqa: SLF001  # of this class

    def hand_over(self, successor: LiveRisk) -> None:
        """Have another go on in the place of this one, on the same store.

        Exchanges that began under this one may still end here. The successor takes in what they
        show: before `observe` returns where the store is this process's memory, else with the
        next delivery. A store that is away stops nothing: what was seen is delivered later.

        Args:
            successor: shares the store, and keeps it open when this one is closed.
        """
        self._successor = successor
        try:
            self.flush()
        except LiveStoreError as error:
            _log.error("guard.live.store_away", name=self.name, error=str(error))

    def flush_if_due(self) -> None:
        """Flush where something was seen, or where others were not heard for a second.

        Raises:
            LiveStoreError: as of `flush`.
        """
        if self._open.exchanges or self._sealed or time.monotonic() - self._looked >= IDLE:
            self._flush()

    def close(self) -> None:
        """Deliver what was seen and let go of the store; call it before the process ends.

        A store that was handed over stays open for the successor. Where others read the store,
        nothing can be observed from then on: what counts under this replica's name is for the
        next process that has it.

        Raises:
            LiveStoreError: the store cannot be reached; with a spool, the next process delivers.
        """
        self._ends.set()
        with self._lock:
            self._closed = self._store.seconds is not None
        if self._thread is not None:
            self._thread.join(timeout=_PATIENCE)
        try:
            self._flush()
        finally:
            if self._spool is not None:
                self._spool.close()
                self._spool = None
            if self._successor is None:
                self._store.close()

    def _deliver_last(self) -> None:
        """Deliver what waits, where others read the store; nobody is there to hear of an error."""
        waits = self._open.exchanges or self._open.raised or self._sealed
        if self._store.seconds is None or not waits:
            return
        try:
            self._flush()
        except LiveStoreError as error:
            _log.error("guard.live.store_away", name=self.name, error=str(error))

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise InputError(
                f"the live risk of `{self.name}` was closed: make another one, or close it later"
            )

    # Tests.

    def _keep_points(self, names: Sequence[str]) -> None:
        """Keep the evidence of categories that moved, for the history."""
        for name in names:
            point = self._point(name, self._tally(name))
            self._open.points.append(point)
            self._points.append(point)

    def _judge(self, names: Sequence[str]) -> tuple[Transition, ...]:
        """Ask the tests of categories; return the alarms that they raise."""
        transitions = []
        for name in names:
            if name not in self._alarms:
                tally = self._tally(name)
                exchanges = self._exchanges - tally.since
                test = self._watches[name].spoken(tally.exceedances, exchanges, tally.peaks)
                if test is not None:
                    transitions.append(self._raise(name, test, tally))
        return tuple(transitions)

    def _raise(self, name: str, test: Test, tally: Tally) -> Transition:
        point = self._point(name, tally)
        alarm = Alarm(
            category=name,
            action=self._profile.settings.acts(name),
            test=test,
            time=point["time"],
            life=tally.life,
            exchanges=self._exchanges - tally.since,
            exceedances=tally.exceedances,
            log_wealth=point["log_wealth"],
            nearness=point["nearness"],
            unjudged=tally.unjudged,
        )
        transition = raised(self.name, alarm, self._alarms)
        self._alarms[name] = alarm
        self._transitions.append(transition)
        self._open.raised.append(transition.as_dict())
        self._spooled(lambda spool: spool.note_raised(transition.as_dict()))
        return transition

    def _point(self, name: str, tally: Tally) -> dict[str, Any]:
        watch, at = self._watches[name], self._exchanges
        return {
            "time": self._clock(),
            "category": name,
            "at": at,
            "life": tally.life,
            "exceedances": tally.exceedances,
            "log_wealth": round(watch.wealth.log(tally.exceedances, at - tally.since), 4),
            "nearness": round(watch.walks.nearness(tally.height_at(at), tally.peaks), 4),
            "prior": self._priors.rates[self._priors.names.index(name)],
        }

    @property
    def _exchanges(self) -> int:
        return self._base.exchanges + self._open.exchanges

    def _tally(self, name: str) -> Tally:
        """Return a category's counts with what is not delivered yet."""
        slopes = self._slopes[name]
        tally = self._base.tallies.get(name)
        if tally is None:
            tally = Tally.new(len(slopes), life=self._lives.get(name, 0))
        part = self._open.parts.get(name)
        return tally if part is None else tally.after(part, self._base.exchanges, slopes)

    def _masses(self) -> dict[str, float]:
        return self._open.masses(self._base.masses)

    # Forks.

    def _join(self) -> tuple[Transition, ...]:
        """Begin as a replica: take a slot, deliver what was left there, load what there is."""
        self._spool = self._new_spool()
        self._replica = uuid4().hex if self._spool is None else self._spool.replica
        self._sequence = 0 if self._spool is None else self._spool.sequence
        try:
            found = self._load()
        except BaseException:
            # Nobody else can give the slot back.
            if self._spool is not None:
                self._spool.close()
                self._spool = None
            raise
        # Alarms are raised and cleared elsewhere, too, while nothing is observed here.
        self._start_delivering()
        return found

    def _join_if_forked(self) -> None:
        """Become a replica of its own in a forked process, once somebody asks there."""
        if not self._forked:
            return
        found: tuple[Transition, ...] = ()
        with self._joining:
            if self._forked:
                found = self._join_or_go_on()
                self._forked = False
        self._tell(found)

    def _join_or_go_on(self) -> tuple[Transition, ...]:
        """Join; where the store is away, go on with what the parent knew."""
        try:
            return self._join()
        except LiveStoreError as error:
            # What is seen from here on waits in memory alone.
            _log.error("guard.live.store_away", name=self.name, error=str(error))
            self._replica, self._sequence = uuid4().hex, 0
            self._start_delivering()
            return ()

    def _hold(self) -> None:
        """Keep others from changing anything until `_let_go`."""
        if self._store.seconds is None:
            self._delivering.acquire()
        self._lock.acquire()

    def _let_go(self) -> None:
        self._lock.release()
        if self._store.seconds is None:
            self._delivering.release()

    def _begin_forked(self) -> None:
        """Leave to the parent what is the parent's: its thread, its slot, what it saw."""
        self._thread, self._ends = None, threading.Event()
        self._joining = threading.Lock()
        if self._store.seconds is None:
            # A copy of the parent's memory: nobody else delivers what it saw.
            return
        self._delivering = threading.Lock()
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._open, self._sealed = self._new_batch(), None
        self._transitions.clear()
        self._points.clear()
        self._forked = True

    # Deliveries.

    def _new_batch(self) -> OpenBatch:
        return OpenBatch(self._priors.names, self._slopes, self._priors.decay)

    def _new_spool(self) -> Spool | None:
        if self._store.spool is None:
            return None
        header = {
            "digest": self._profile.digest,
            "names": self._priors.names,
            "slopes": self._slopes,
            "decay": self._priors.decay,
        }
        return Spool(self._store.spool, self._store.name, header)

    def _load(self) -> tuple[Transition, ...]:
        self._tell_of_losses()
        self._store.open(self._profile)
        if self._spool is not None:
            for sequence, batch in self._spool.recovered():
                self._store.merge(self._replica, sequence, batch)
                self._spool.delivered()
            self._sequence = self._spool.sequence
        snapshot = self._store.read(self._profile.digest, self._replica)
        self._sequence = max(self._sequence, snapshot.sequence)
        history = self._store.history(self._profile.digest)
        self._transitions.extend(history.transitions)
        self._points.extend(history.points)
        for name, alarm in lost_alarms(history.transitions, snapshot).items():
            self._alarms[name] = alarm
            _log.error("guard.live.alarm_restored", name=self.name, category=name)
        transitions = self._adopt(snapshot)
        self._spooled(lambda spool: spool.turn(self._lives))
        return transitions

    def _tell_of_losses(self) -> None:
        """Log that the store lost what it had counted: alarms that stood may be gone with it."""
        empty = self._store.profile() is None
        if self._spool is None:
            if empty and self._store.seconds is not None:
                # Here nobody remembers whether there was anything.
                _log.warning("guard.live.store_empty", name=self.name)
            return
        counted = self._store.read(self._profile.digest, self._replica).sequence
        # A store may forget a replica alone that was silent for long; then nothing is counted.
        if (empty and self._spool.sequence) or 0 < counted < self._spool.acknowledged:
            delivered = self._spool.sequence if empty else self._spool.acknowledged
            _log.error(
                "guard.live.store_forgot", name=self.name, delivered=delivered, counted=counted
            )

    def _deliver(self) -> tuple[Transition, ...]:
        """Deliver one batch; return the alarms that what replicas saw together raised."""
        self._seal()
        if self._sealed is None:
            snapshot = self._store.read(self._profile.digest, self._replica)
        else:
            snapshot = self._store.merge(self._replica, self._sequence, self._sealed)
            self._sealed = None
            self._spooled(lambda spool: spool.delivered())
        self._looked = time.monotonic()
        if snapshot.state.exchanges < self._base.exchanges:
            # A store that forgot its counts does not know what they are counted under either.
            self._store.open(self._profile)
        return self._adopt(snapshot)

    def _seal(self) -> None:
        """Seal the open batch, unless one is on its way whose fate is not known."""
        with self._lock:
            if self._sealed is not None:
                self._spooled(self._hold_if_long)
                return
            if not self._open.exchanges and not self._open.raised:
                return
            batch = self._open.sealed(self._profile.digest, self._lives)
            self._open = self._new_batch()
            self._base.take(batch, self._lives)
            self._sequence += 1
            self._sealed = batch
            ended = self._spooled(lambda spool: spool.turn(self._lives))
        if ended is not None:
            self._spooled(lambda spool: spool.seal(self._sequence, batch, ended))

    def _hold_if_long(self, spool: Spool) -> None:
        if spool.long:
            ended = spool.turn(self._lives)
            spool.hold(self._open.sealed(self._profile.digest, self._lives), ended)

    def _adopt(self, snapshot: Snapshot) -> tuple[Transition, ...]:
        """Take what the store holds for what was before the open batch; judge it all."""
        with self._lock:
            self._base = snapshot.state
            ended = self._end_lives(snapshot)
            # A store that forgot may know fewer lives than we do.
            self._base.renew(self._lives)
            self._priors.load(self._masses(), self._exchanges)
            for name, alarm in snapshot.alarms.items():
                if name not in self._alarms:
                    self._alarms[name] = alarm
                    _log.warning("guard.live.alarm_adopted", name=self.name, category=name)
            self._raise_again(snapshot)
            found = self._judge([name for name in self._watches if name not in self._alarms])
        return (*self._cleared_elsewhere(ended), *found)

    def _end_lives(self, snapshot: Snapshot) -> list[Alarm]:
        """Begin a new life where a person cleared an alarm elsewhere; return those that stood."""
        newer = {
            name: life for name, life in snapshot.lives.items() if life > self._lives.get(name, 0)
        }
        ended = []
        self._begin_lives(newer)
        for name, life in newer.items():
            standing = self._alarms.get(name)
            if standing is not None and standing.life < life:
                ended.append(self._alarms.pop(name))
                _log.info("guard.live.clearing_adopted", name=self.name, category=name)
        return ended

    def _cleared_elsewhere(self, ended: Sequence[Alarm]) -> tuple[Transition, ...]:
        """Return who cleared alarms elsewhere; whoever did it there had nobody to tell."""
        if not ended:
            return ()
        wanted = {(alarm.category, alarm.life) for alarm in ended}
        try:
            known = self._store.history(self._profile.digest).transitions
        except LiveStoreError as error:
            _log.error("guard.live.store_away", name=self.name, error=str(error))
            return ()
        found = tuple(
            each
            for each in known
            if each.kind == "cleared" and (each.alarm.category, each.alarm.life) in wanted
        )
        with self._lock:
            self._transitions.extend(found)
        return found

    def _begin_lives(self, lives: Mapping[str, int]) -> None:
        """Begin the tests of the categories in `lives` anew."""
        if not lives:
            return
        self._lives.update(lives)
        self._base.renew(self._lives)
        for name in lives:
            if name in self._watches:
                self._open.renew(name)
        # The log in use, empty or not, says that what stands in it belongs to the old lives.
        self._spooled(lambda spool: spool.turn(self._lives))

    def _raise_again(self, snapshot: Snapshot) -> None:
        """Tell the store of alarms that it does not know, or has forgotten."""
        told = {each["alarm"]["category"] for each in self._open.raised}
        missing = [name for name in self._alarms if name not in snapshot.alarms]
        for name in missing:
            if name not in told:
                others = {key: value for key, value in self._alarms.items() if key != name}
                transition = raised(self.name, self._alarms[name], others)
                self._open.raised.append(transition.as_dict())
        if not missing:
            self._spooled(lambda spool: spool.settle())

    def _spooled(self, action: Callable[[Spool], _T]) -> _T | None:
        """Do something with the spool, where there is one; its failing must not stop judging."""
        if self._spool is None:
            return None
        try:
            return action(self._spool)
        except OSError as error:
            # What a kill would lose now is what was seen since.
            _log.error("guard.live.spool_failed", name=self.name, error=str(error))
            return None

    def _start_delivering(self) -> None:
        with self._lock:
            if self._thread is None and self._store.seconds is not None:
                self._thread = threading.Thread(
                    target=keep_delivering,
                    args=(weakref.ref(self), self._store.seconds, self._ends),
                    name="guard-live",
                    daemon=True,
                )
                self._thread.start()

    def _tell(self, transitions: Sequence[Transition]) -> None:
        for transition in transitions:
            _log.warning(EVENTS[transition.kind], **_fields(transition))
            for notifier in self._notify:
                try:
                    notifier(transition)
                except Exception as error:  # noqa: BLE001  # a notifier must not stop judging
                    _log.error(
                        "guard.live.notifier_failed",
                        id=transition.id,
                        error=f"{type(error).__name__}: {error}",
                    )


_all: Final[weakref.WeakSet[LiveRisk]] = weakref.WeakSet()
_held: Final[list[LiveRisk]] = []
"""Those that a fork under way must find whole."""


def _deliver_all() -> None:
    """Deliver at the interpreter's end what nobody closed."""
    for risk in list(_all):
        risk._deliver_last()  # noqa: SLF001  # of this module


atexit.register(_deliver_all)


def _hold_all() -> None:
    # What is held here may be waited for by a log event. Handlers of forks that are registered
    # last run first, so logging is imported before: whoever forks must not hold its lock yet.
    _held.extend(_all)
    for risk in _held:
        risk._hold()  # noqa: SLF001  # of this module


def _let_all_go() -> None:
    while _held:
        _held.pop()._let_go()  # noqa: SLF001  # of this module


def _begin_all_forked() -> None:
    forked = list(_held)
    _let_all_go()
    for risk in forked:
        risk._begin_forked()  # noqa: SLF001  # of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_hold_all, after_in_parent=_let_all_go, after_in_child=_begin_all_forked
    )


def _fields(transition: Transition) -> dict[str, Any]:
    alarm = transition.alarm
    return {
        "id": transition.id,
        "name": transition.name,
        "category": alarm.category,
        "action": alarm.action,
        "test": alarm.test,
        "before": transition.before,
        "after": transition.after,
        "exchanges": alarm.exchanges,
        "exceedances": alarm.exceedances,
        "unjudged": alarm.unjudged,
        "by": transition.by,
        "reason": transition.reason,
    }

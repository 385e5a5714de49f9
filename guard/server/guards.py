"""The guards of a running server: which one judges a request, and how policies are loaded anew.

Guards never change. A reload makes new ones of all policy files and puts them in the place of
the old ones at once, or, where any file is wrong, not at all: then nothing was opened and nothing
that serves was touched. Exchanges that are under way finish under the guard that they began with;
what they show reaches the live risk that serves, and so does every alarm (`guard.live.succession`).

This module does not know HTTP or how a text is judged.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import platformdirs

from guard.engine import Guard
from guard.errors import ConfigurationError, GuardError
from guard.journal.store import Journal
from guard.live import LiveRisk
from guard.live.deployed import profile_of
from guard.live.stand_in import StandIn
from guard.live.succession import Succession
from guard.loading import admitted, head_files, load_parts, stricter
from guard.log import Log
from guard.policy import head_places, load_class
from guard.security_class import JournalSettings
from guard.server.deployed import fingerprint_of
from guard.server.settings import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from guard.detectors.base import Detector
    from guard.live import Alarm, Notifier
    from guard.live.profile import Profile
    from guard.live.succession import Change
    from guard.loading import Parts
    from guard.security_class import SecurityClass
    from guard.server.keys import Caller
    from guard.server.metrics import Metrics
    from guard.server.settings import ServerSettings

FALLBACK: Final = {"backend": "fallback"}
"""What the journal says of an answer by the backend that stands in for the other."""

Fallback = Literal["unused", "configured", "missing"]
"""Whether some alarm would ask for another backend, and whether there is one."""

_T = TypeVar("_T")

_log: Final = Log()


@dataclass(frozen=True, slots=True)
class Judges:
    """What judges under one security class.

    Attributes:
        guard: decides, mends and journals.
        scorer: judges a text to its end, whatever it finds, and keeps nothing; for scores.
        stand_in: judges the answers of the backend that an alarm asks for, under the same class;
            `None` where there is no such backend.
    """

    guard: Guard
    scorer: Guard
    stand_in: Guard | None = None

    @classmethod
    def of(
        cls,
        security_class: SecurityClass,
        detectors: Sequence[Detector],
        *,
        stand_in: Guard | None = None,
        **parts: Any,
    ) -> Judges:
        """Return the judges of a class; `parts` are those of a `Guard`.

        Raises:
            ConfigurationError: they do not fit together.
        """
        return cls(
            Guard(security_class, detectors, **parts),
            Guard(_scoring(security_class), detectors),
            stand_in,
        )

    @property
    def security_class(self) -> SecurityClass:
        """The class under which they judge."""
        return self.guard.security_class

    @property
    def fallback(self) -> Fallback:
        """Whether an alarm of the class would ask for another backend, and there is one."""
        live = self.security_class.live
        if self.guard.live is None or live is None or "fallback" not in live.actions:
            return "unused"
        return "missing" if self.stand_in is None else "configured"

    @property
    def standing_in(self) -> Guard | None:
        """Who judges the other backend's answers, while an alarm asks for it; else `None`."""
        return self.stand_in if self.guard.posture == "fallback" else None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a guard is to be made of. Nothing was opened for it.

    Attributes:
        source: of its class, and where it stands in for another, that it does.
        name: of its live state.
        security_class: under which its model is admitted.
        detectors: everything that sees risk.
        profile: what its live risk is counted under; `None` where nobody follows it.
        others: the rest of a `Guard`'s parts.
        stand_in: the plan of who judges the backend that an alarm may ask for; `None` without.
    """

    source: str
    name: str
    security_class: SecurityClass
    detectors: Sequence[Detector]
    profile: Profile | None
    others: Mapping[str, Any]
    stand_in: _Plan | None = None


class Loader:
    """Makes the guards that a server's settings ask for.

    The classifier is loaded once, and again only where a class has categories of its own.

    Args:
        settings: say which classes there are.
        journal: where the guards keep their rows; `None` for nowhere.
        notify: who is told of alarms.
    """

    def __init__(
        self, settings: ServerSettings, journal: Journal | None, notify: Sequence[Notifier] = ()
    ) -> None:
        """Load nothing yet."""
        self._settings = settings
        self._journal = journal
        self._standard: Parts | None = None
        self._profiles: dict[str, tuple[SecurityClass, Sequence[Detector], Profile]] = {}
        self._succession = Succession(settings.live, notify)
        self._busy = threading.Lock()

    def __call__(self) -> dict[str, Judges]:
        """Return the judges by the source of their class.

        All or nothing: where it raises, the judges that it returned before go on as they were.

        Raises:
            ConfigurationError: everything that is wrong in any of the files.
        """
        with self._busy:
            plans = _each(
                self._settings.sources, lambda source: self._plan(load_class(source), source)
            )
            with self._succession.change() as change:
                return _each(plans, lambda source: _judges(plans[source], change))

    def close(self) -> None:
        """Deliver what the live risks have seen, and let go of their stores.

        Raises:
            LiveStoreError: a store cannot be reached; the others were let go of all the same.
        """
        # The server may stop while files are loaded: what that opens is closed, too.
        with self._busy:
            self._succession.close()

    def _plan(self, security_class: SecurityClass, source: str) -> _Plan:
        """Return what the judges of a class are to be made of."""
        settings = self._settings
        parts = replace(self._parts(security_class), security_class=security_class)
        deployed = admitted(parts, settings.tag, settings.trust, fingerprint_of(settings.deployed))
        profile = self._profile(deployed, parts.detectors, source)
        others = {
            "stricter": None if profile is None else stricter(security_class),
            "journal": self._journal,
            "language": settings.language,
            "redactor": parts.redactor,
        }
        stand_in = None
        if profile is not None and settings.fallback_upstream is not None:
            stand_in = self._stand_in(parts, source, others)
        return _Plan(
            source, security_class.name, deployed, parts.detectors, profile, others, stand_in
        )

    def _stand_in(self, parts: Parts, source: str, others: Mapping[str, Any]) -> _Plan | None:
        """Return the plan of who judges the backend that an alarm of the class may ask for."""
        settings, security_class = self._settings, parts.security_class
        if security_class.live is None or "fallback" not in security_class.live.actions:
            return None
        try:
            fingerprint = fingerprint_of(settings.fallback_deployed)
            deployed = admitted(parts, settings.fallback_tag, settings.trust, fingerprint)
        except GuardError as error:
            problems = [f"the fallback: {problem}" for problem in _problems(error)]
            raise ConfigurationError(problems) from error
        own = f"{source} (fallback)"
        profile = self._profile(deployed, parts.detectors, own)
        name = f"{security_class.name}/fallback"
        others = {**others, "metadata": FALLBACK}
        return _Plan(own, name, deployed, parts.detectors, profile, others)

    def _profile(
        self, security_class: SecurityClass, detectors: Sequence[Detector], source: str
    ) -> Profile | None:
        """Return what the live risk of a class is counted under, `None` where nobody follows it."""
        if security_class.live is None or self._settings.live == NOTHING:
            return None
        known = self._profiles.get(source)
        if known is not None and known[:2] == (security_class, detectors):
            # It takes long to find, and most reloads change one class of many.
            return known[2]
        profile = profile_of(security_class, detectors)
        self._profiles[source] = (security_class, detectors, profile)
        return profile

    def _parts(self, security_class: SecurityClass) -> Parts:
        if head_files(security_class):
            return load_parts(security_class, None, self._settings.model, (), ())
        if self._standard is None:
            self._standard = load_parts(security_class, None, self._settings.model, (), ())
        return self._standard


class Guards:
    """The guards in use, which a reload may replace at any time.

    Args:
        load: makes all of them, by the source of their class.
        settings: say which class is whose.
        metrics: where reloads are counted.

    Raises:
        ConfigurationError: a policy or the model is wrong.
    """

    def __init__(
        self, load: Callable[[], Mapping[str, Judges]], settings: ServerSettings, metrics: Metrics
    ) -> None:
        """Load them for the first time."""
        self._load = load
        self._settings = settings
        self._metrics = metrics
        self._busy = asyncio.Lock()
        self._wanted = asyncio.Event()
        # Before they are loaded: what changes meanwhile is seen as a change.
        self._seen = self._look()
        self._judges = load()
        self._warn()
        metrics.follow(lambda: self.alarms)
        self.loaded = datetime.now(UTC)
        self.stale = False

    @property
    def default(self) -> Judges:
        """The judges of the server's own class."""
        return self._judges[self._settings.security_class]

    @property
    def every(self) -> tuple[Judges, ...]:
        """The judges of each class in use, once."""
        return tuple({id(judges): judges for judges in self._judges.values()}.values())

    def of(self, caller: Caller, path: str) -> Judges:
        """Return who judges a request: the stricter of its key's and its route's class."""
        route = self._settings.route(path)
        sources = [caller.security_class, route.security_class if route else None]
        named = [self._judges[source] for source in sources if source]
        return max(named, key=lambda j: j.security_class.rank, default=self.default)

    def upstream_model(self, caller: Caller, path: str) -> str | None:
        """Return the model that a request is sent to, `None` for what it asks for."""
        if self._settings.deployed is not None:
            return self._settings.deployed.model
        route = self._settings.route(path)
        return caller.upstream_model or (route.upstream_model if route else None)

    def close(self) -> None:
        """Let go of what the guards keep."""
        close = getattr(self._load, "close", None)
        if close is not None:
            close()

    def want_reload(self) -> None:
        """Have `watch` load everything anew soon; callable from a signal handler of the loop."""
        self._wanted.set()

    async def reload(self) -> bool:
        """Load everything anew and use it, or keep what is there; return whether it is used."""
        async with self._busy:
            try:
                judges = await asyncio.to_thread(self._load)
            except Exception as error:  # noqa: BLE001  # whatever it is, the old ones go on
                _log.error("guard.policies_refused", problems=_problems(error))
                self.stale = True
            else:
                self._judges = judges
                self.loaded = datetime.now(UTC)
                self.stale = False
                _log.info("guard.policies_loaded", classes=sorted(self.names))
                self._warn()
            self._metrics.reload(ok=not self.stale)
            return not self.stale

    @property
    def names(self) -> set[str]:
        """The names of the classes in use."""
        return {judges.security_class.name for judges in self._judges.values()}

    @property
    def postures(self) -> dict[str, str]:
        """How each class stands."""
        return {
            judges.security_class.name: judges.guard.posture for judges in self._judges.values()
        }

    @property
    def alarms(self) -> list[tuple[str, Alarm]]:
        """The alarms that stand, each with the name of its live state."""
        guards = [g for j in self._judges.values() for g in (j.guard, j.stand_in) if g is not None]
        lives = [live.own if isinstance(live := g.live, StandIn) else live for g in guards]
        # Several sources may be one class, whose state is one.
        risks = {live.name: live for live in lives if isinstance(live, LiveRisk)}
        return [(name, alarm) for name, live in risks.items() for alarm in live.alarms.values()]

    @property
    def fallback(self) -> Fallback:
        """Whether some alarm would ask for another backend, and whether there is one."""
        found = {judges.fallback for judges in self._judges.values()}
        if "missing" in found:
            return "missing"
        return "configured" if "configured" in found else "unused"

    def _warn(self) -> None:
        """Say which classes would have another backend answer where there is none."""
        missing = [j for j in self._judges.values() if j.fallback == "missing"]
        if missing:
            _log.warning(
                "guard.no_fallback",
                classes=sorted({judges.security_class.name for judges in missing}),
                meanwhile="an alarm blocks every answer: set `fallback_upstream`",
            )

    async def watch(self) -> None:
        """Reload whenever it is wanted or a file has changed; runs until it is cancelled."""
        every = self._settings.reload_seconds or None
        while True:
            try:
                async with asyncio.timeout(every):
                    await self._wanted.wait()
            except TimeoutError:
                if await asyncio.to_thread(self._unchanged):
                    continue
            self._wanted.clear()
            self._seen = await asyncio.to_thread(self._look)
            await self.reload()

    def _look(self) -> dict[str, str]:
        """Return what the policy files, the heads that they name and the tags hold now."""
        sources = self._settings.sources
        tags = [str(tag) for tag in (self._settings.tag, self._settings.fallback_tag) if tag]
        files = [*(source.partition("#")[0] for source in sources), *tags]
        seen = {name: _digest(Path(name)) for name in files}
        # Behind the policies: one that changes meanwhile is seen as a change. Those of a policy
        # that is refused count as well, since it may be they that are mended.
        heads = [head for source in sources for head in head_places(source)]
        return seen | {name: _digest(Path(name)) for name in heads}

    def _unchanged(self) -> bool:
        """Return whether all of these hold what they held."""
        return all(_digest(Path(name)) == digest for name, digest in self._seen.items())


def _each(sources: Iterable[str], make: Callable[[str], _T]) -> dict[str, _T]:
    """Return what `make` makes of each source.

    Raises:
        ConfigurationError: everything that is wrong with any of them.
    """
    made: dict[str, _T] = {}
    problems: list[str] = []
    for source in sources:
        try:
            made[source] = make(source)
        except GuardError as error:
            problems += _problems(error)
    if problems:
        raise ConfigurationError(problems)
    return made


def _judges(plan: _Plan, change: Change) -> Judges:
    """Return the judges that a plan asks for; their live risks are those of `change`."""
    live = _live(plan, change)
    stand_in = None
    if live is not None and plan.stand_in is not None:
        stand_in = _guard_of_stand_in(plan.stand_in, live, change)
    judges = Judges.of(
        plan.security_class, plan.detectors, live=live, stand_in=stand_in, **plan.others
    )
    if live is not None:
        change.told_by(plan.source, judges.guard.driver)
    return judges


def _guard_of_stand_in(plan: _Plan, first: LiveRisk, change: Change) -> Guard | None:
    """Return who judges the backend that stands in for the one that `first` follows."""
    own = _live(plan, change)
    if own is None:
        return None
    guard = Guard(plan.security_class, plan.detectors, live=StandIn(own, first), **plan.others)
    change.told_by(plan.source, guard.driver)
    return guard


def _live(plan: _Plan, change: Change) -> LiveRisk | None:
    """Return what follows the live risk, `None` where nobody does."""
    if plan.profile is None:
        return None
    return change.follow(plan.source, plan.name, plan.profile)


def _scoring(security_class: SecurityClass) -> SecurityClass:
    """Return a class with the same limits that stops at nothing and notes nothing."""
    nothing = JournalSettings(actions=())
    return security_class.model_copy(update={"shadow": True, "journal": nothing})


def open_journal(settings: ServerSettings) -> Journal | None:
    """Open the journal that the settings name.

    Raises:
        JournalError: it cannot be opened.
    """
    if settings.journal == NOTHING:
        return None
    if settings.journal is None and settings.demo:
        # A demonstration's rows do not mix with real ones.
        return Journal(Path(platformdirs.user_state_dir("clearance")) / "demo.sqlite3")
    return Journal(settings.journal)


def _problems(error: Exception) -> list[str]:
    """Return what is wrong; of an unforeseen error only its type, since it may quote anything."""
    if isinstance(error, ConfigurationError):
        return list(error.problems)
    return [str(error) if isinstance(error, GuardError) else type(error).__name__]


def _digest(path: Path) -> str:
    """Return a file's digest, `""` where there is none: a built-in class has a name only."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return ""

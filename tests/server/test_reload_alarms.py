"""Alarms through reloads: only a person clears one, whatever becomes of the files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from guard.policy import BUILTIN
from guard.server.guards import Guards, Loader
from guard.server.load import Load
from guard.server.metrics import Metrics
from guard.server.settings import ClientKey, ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HARMLESS = {"description": "Another word for the same."}
"""A change of a class that changes nothing that is counted."""

OTHERWISE = {"live": {"tolerated": 0.002, "action": "quarantine"}}
"""A change of what is counted: another live risk goes on."""


class Deployment:
    """Two policy files that a test rewrites, and the guards of a server that uses both."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        """Load both for the first time."""
        self._first, self._second = folder / "first.yaml", folder / "second.yaml"
        self.change()
        self.mend()
        key = ClientKey(name="a", hash="sha256:" + "0" * 64, security_class=str(self._second))
        given = ServerSettings(security_class=str(self._first), keys=(key,), **settings)
        self.guards = Guards(Loader(given, None), given, Metrics(Load(given)))

    @property
    def live(self) -> Any:
        """What follows the live risk of the first class, for who serves now."""
        return self.guards.default.guard.live

    def change(self, **values: Any) -> None:
        """Write the first file anew, with other values of its class."""
        self._first.write_text(policy("first", **values), encoding="utf-8")

    def spoil(self) -> None:
        """Make the second file unusable."""
        self._second.write_text("classes: [", encoding="utf-8")

    def mend(self) -> None:
        """Make the second file usable again."""
        self._second.write_text(policy("second"), encoding="utf-8")


def policy(name: str, **values: Any) -> str:
    """Return the text of a policy with one class, whose alarms are a quarantine."""
    text = (BUILTIN / "public.yaml").read_text(encoding="utf-8")
    written: dict[str, Any] = yaml.safe_load(text)
    (only,) = written["classes"]
    live = {"tolerated": 0.001, "action": "quarantine"}
    written["classes"] = [{**only, "name": name, "live": live, **values}]
    return yaml.safe_dump(written)


def alarm(live: Any) -> None:
    """Have a live risk see what it cannot tolerate."""
    for _ in range(200):
        if live.observe({"bad_advice": 50.0}):
            return
    pytest.fail("no alarm was raised")


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Return the maker of deployments; closes what it made."""
    made: list[Deployment] = []

    def make(**settings: Any) -> Deployment:
        made.append(Deployment(tmp_path, **settings))
        return made[-1]

    yield make
    for each in made:
        each.guards.close()


@pytest.mark.parametrize("values", [HARMLESS, OTHERWISE], ids=["harmless", "otherwise"])
class TestInMemory:
    """Where the live risk is kept in memory, the default."""

    async def test_a_refused_reload_forgets_no_alarm(
        self, deploy: Callable[..., Deployment], values: dict[str, Any]
    ) -> None:
        """What is raised while a file is broken stands once it is mended."""
        server = deploy()
        served = server.live
        server.change(**values)
        server.spoil()
        assert not await server.guards.reload()
        assert server.live is served
        alarm(served)
        assert server.guards.postures["first"] == "quarantine"
        server.mend()
        assert await server.guards.reload()
        assert server.guards.postures == {"first": "quarantine", "second": "normal"}
        assert server.guards.default.guard.check("All is well.").action == "block"

    async def test_an_exchange_under_way_raises_the_alarm_that_serves(
        self, deploy: Callable[..., Deployment], values: dict[str, Any]
    ) -> None:
        """One that began before a good reload and ends after it."""
        server = deploy()
        before = server.guards.default.guard
        server.change(**values)
        assert await server.guards.reload()
        assert server.guards.default.guard is not before
        alarm(before.live)
        assert server.guards.postures == {"first": "quarantine", "second": "normal"}

    async def test_only_what_is_counted_otherwise_is_replaced(
        self, deploy: Callable[..., Deployment], values: dict[str, Any]
    ) -> None:
        """Conversations and what waits to be delivered stay where they are."""
        server = deploy()
        before = server.live
        server.change(**values)
        assert await server.guards.reload()
        assert (server.live is before) == (values is HARMLESS)


class TestInAFile:
    """Where the live risk is kept in a file."""

    async def test_a_refused_reload_opens_nothing(
        self, deploy: Callable[..., Deployment], tmp_path: Path
    ) -> None:
        """What serves goes on untouched, and is what the end lets go of."""
        place = tmp_path / "live.sqlite3"
        server = deploy(live=str(place))
        served = server.live
        served.observe({})
        server.change(**OTHERWISE)
        server.spoil()
        assert not await server.guards.reload()
        slots = tmp_path / "live.sqlite3-spool" / "first"
        assert [path.name for path in slots.iterdir()] == ["slot-0"]
        assert served.store.profile() == served.profile
        served.observe({})
        server.guards.close()
        assert served._spool is None

    async def test_a_stand_in_is_followed_on(
        self, deploy: Callable[..., Deployment], tmp_path: Path
    ) -> None:
        """The backend that stands in for another has a live risk of its own, likewise."""
        falls_back = {"live": {"tolerated": 0.001, "action": "fallback"}}
        server = deploy(
            live=str(tmp_path / "live.sqlite3"),
            upstream="http://127.0.0.1:9/v1",
            fallback_upstream="http://127.0.0.1:9/v1",
        )
        server.change(**falls_back)
        assert await server.guards.reload()
        before = server.guards.default.stand_in
        assert before is not None
        server.change(**falls_back, **HARMLESS)
        server.spoil()
        assert not await server.guards.reload()
        server.mend()
        assert await server.guards.reload()
        after = server.guards.default.stand_in
        assert after is not None
        assert after is not before
        alarm(before.live)
        assert after.posture == "fallback"

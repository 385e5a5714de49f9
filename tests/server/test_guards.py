"""Hot reload: all or nothing, said aloud, and without a word to exchanges under way."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from structlog.testing import capture_logs

from guard.detectors.base import Finding
from guard.detectors.secrets import secret_detector
from guard.errors import ConfigurationError
from guard.heads import BelongsTo, HeadCalibration, OwnHead
from guard.journal.store import Journal
from guard.policy import BUILTIN, load_class
from guard.server.guards import Guards, Judges, Loader, open_journal
from guard.server.load import Load
from guard.server.metrics import Metrics
from guard.server.settings import NOTHING, ClientKey, ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx2

    from guard.detectors.base import Passage
    from guard.security_class import SecurityClass


KEYS_ONLY = """\
version: 1
classes:
  - name: own
    rank: 2
    limits:
      secret_leak: {act: 0.5}
    messages:
      en: {blocked: "[blocked]", replaced: "[replaced]"}
"""


class Policies:
    """A policy file that a test rewrites, and the guards that are made of it."""

    def __init__(self, path: Path, make: Callable[..., SecurityClass]) -> None:
        """Write the first version."""
        self.path = path
        self.detector = Slow()
        self._make = make
        self.write("first")

    def write(self, message: str) -> None:
        """Write a version whose block message is `message`."""
        limits = {"to_block": {"act": 0.9, "remedy": "block"}}
        messages = {"en": {"blocked": f"[{message}]", "replaced": "[replaced]"}}
        self._put(yaml.safe_dump({"limits": limits, "messages": messages}))

    def spoil(self) -> None:
        """Write what is no policy."""
        self._put("limits: [")

    def _put(self, text: str) -> None:
        """Write the file at once: whoever watches it must not find it half written."""
        new = self.path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(self.path)

    def load(self) -> dict[str, Judges]:
        """Return the judges of what is written now."""
        try:
            values = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            raise ConfigurationError([f"{self.path}:1: not valid YAML", "and more"]) from None
        return {str(self.path): Judges.of(self._make(**values), (self.detector,))}


class Slow:
    """Finds `zblock`, and waits where the text says so."""

    name, version, categories = "slow", "1", ("to_block",)

    def __init__(self) -> None:
        """Wait until it is let go."""
        self.waiting, self.opened = threading.Event(), threading.Event()

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return a finding per unit with the word."""
        if "wait" in passage.unit:
            self.waiting.set()
            assert self.opened.wait(30)
        found = Finding("to_block", 9.0, passage.start, passage.end, self.name, "1")
        return [found] if "zblock" in passage.unit else []


@pytest.fixture
def policies(tmp_path: Path, make_class: Callable[..., SecurityClass]) -> Policies:
    """Return a policy file of its own."""
    return Policies(tmp_path / "policy.yaml", make_class)


@pytest.fixture
def guards(policies: Policies) -> Guards:
    """Return guards of that file, which look at it fifty times a second."""
    settings = ServerSettings(security_class=str(policies.path), reload_seconds=0.02)
    return Guards(policies.load, settings, Metrics(Load(settings)))


def message(guards: Guards) -> str:
    """Return what a blocked user reads now."""
    return guards.default.guard.check("zblock").message


def head(path: Path) -> Path:
    """Write a head of an own category there."""
    made = OwnHead(
        category="brand_voice",
        model=BelongsTo(name="clearance", version="1", digest="0" * 64),
        weights=(0.0,) * 4,
        intercept=-1.0,
        calibration=HeadCalibration(slope=1.0, intercept=0.0, minimum=-3.0, maximum=3.0),
    )
    made.write(path)
    return path


class TestReload:
    """Loading everything anew."""

    async def test_a_good_file(self, policies: Policies, guards: Guards) -> None:
        """New guards take the place of the old ones."""
        before = guards.loaded
        policies.write("second")
        assert await guards.reload()
        assert message(guards) == "[second]"
        assert guards.loaded > before

    async def test_a_bad_file(self, policies: Policies, guards: Guards) -> None:
        """The old guards go on, every problem is logged, and the next good file is used."""
        policies.spoil()
        with capture_logs() as logs:
            assert not await guards.reload()
        assert message(guards) == "[first]"
        assert guards.stale
        (entry,) = logs
        assert entry["event"] == "guard.policies_refused"
        assert entry["problems"] == [f"{policies.path}:1: not valid YAML", "and more"]
        policies.write("third")
        assert await guards.reload()
        assert (message(guards), guards.stale) == ("[third]", False)

    async def test_an_unforeseen_error(self, policies: Policies, guards: Guards) -> None:
        """Whatever goes wrong, the old guards go on, and the log quotes nothing."""
        policies.path.write_bytes(b"\xff SENTINEL")
        with capture_logs() as logs:
            assert not await guards.reload()
        assert message(guards) == "[first]"
        assert logs[0]["problems"] == ["UnicodeDecodeError"]

    def test_at_the_start(self, policies: Policies) -> None:
        """There is nothing to fall back to at the start: a bad file is an error."""
        policies.spoil()
        settings = ServerSettings(security_class=str(policies.path))
        with pytest.raises(ConfigurationError, match="not valid YAML"):
            Guards(policies.load, settings, Metrics(Load(settings)))


class TestServed:
    """Over a real port, by changing files."""

    @pytest.fixture
    def client(self, policies: Policies, serve: Callable[..., httpx2.Client]) -> httpx2.Client:
        """Return a client of a server that watches the file."""
        return serve(load=policies.load, security_class=str(policies.path), reload_seconds=0.02)

    @staticmethod
    def message(client: httpx2.Client, response: str = "zblock") -> str:
        """Return what a blocked user reads now."""
        answer = client.post("/v1/guard/check", json={"response": response})
        text: str = answer.json()["delivered"]
        return text

    @staticmethod
    def until(holds: Callable[[], bool]) -> None:
        """Wait until something holds; fail if it never does."""
        ends = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < ends
            time.sleep(0.02)

    def test_a_change_is_seen(self, client: httpx2.Client, policies: Policies) -> None:
        """A file that changes is used soon, and counted."""
        assert self.message(client) == "[first]"
        policies.write("second")
        self.until(lambda: self.message(client) == "[second]")
        assert 'guard_policy_reloads_total{outcome="ok"} 1.0' in client.get("/metrics").text

    def test_a_bad_change_is_said(self, client: httpx2.Client, policies: Policies) -> None:
        """Readiness and numbers say that a file is not usable; the server goes on, and is ready."""
        policies.spoil()
        self.until(lambda: client.get("/health/ready").json()["policies"] == "stale")
        assert client.get("/health/ready").status_code == 200
        assert self.message(client) == "[first]"
        time.sleep(0.2)
        numbers = client.get("/metrics").text
        assert "guard_policy_stale 1.0" in numbers
        # Once for the change, and not every time that it looks.
        assert 'guard_policy_reloads_total{outcome="failed"} 1.0' in numbers
        policies.write("second")
        self.until(lambda: client.get("/health/ready").json()["policies"] == "current")
        assert self.message(client) == "[second]"

    def test_a_file_that_goes(self, client: httpx2.Client, policies: Policies) -> None:
        """A file that is deleted is a bad change."""
        policies.path.unlink()
        self.until(lambda: client.get("/health/ready").json()["policies"] == "stale")
        assert self.message(client) == "[first]"

    def test_a_head_that_is_mended(
        self, serve: Callable[..., httpx2.Client], tmp_path: Path
    ) -> None:
        """A policy that was refused for the sake of its head is used once the head is there."""
        path = tmp_path / "own.yaml"
        path.write_text(KEYS_ONLY, encoding="utf-8")

        def load() -> dict[str, Judges]:
            return {str(path): Judges.of(load_class(path), (secret_detector(),))}

        client = serve(load=load, security_class=str(path), reload_seconds=0.02)
        path.write_text(KEYS_ONLY.replace("rank: 2", "rank: 2\n    heads: [voice.json]"), "utf-8")
        self.until(lambda: client.get("/health/ready").json()["policies"] == "stale")
        head(tmp_path / "new.json").replace(tmp_path / "voice.json")
        self.until(lambda: client.get("/health/ready").json()["policies"] == "current")

    def test_exchanges_under_way(self, client: httpx2.Client, policies: Policies) -> None:
        """An exchange that began under the old policy ends under it."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self.message, client, "wait zblock")
            assert policies.detector.waiting.wait(10)
            policies.write("second")
            self.until(lambda: self.message(client) == "[second]")
            policies.detector.opened.set()
            assert running.result() == "[first]"


class TestLoader:
    """Real policy files and the real model."""

    @pytest.fixture
    def own(self, tmp_path: Path) -> Path:
        """Return a policy file with two classes."""
        text = (BUILTIN / "internal.yaml").read_text(encoding="utf-8")
        path = tmp_path / "own.yaml"
        second = text.partition("classes:\n")[2].replace("name: internal", "name: second")
        path.write_text(text + second, encoding="utf-8")
        return path

    def settings(self, own: Path, name: str = "second") -> ServerSettings:
        """Return settings with a built-in class, one of a file, and one of a route."""
        routes = [{"path": "/v1/messages", "security_class": "critical"}]
        values: dict[str, Any] = {"security_class": f"{own}#{name}", "routes": routes}
        return ServerSettings(**values)

    def test_one_classifier(self, own: Path) -> None:
        """Classes share the classifier, at a reload too; each has its own name and limits."""
        load = Loader(self.settings(own), None)
        first, second = load(), load()
        names = [judges.security_class.name for judges in first.values()]
        assert names == ["second", "critical"]
        drivers = [judges.guard.driver for judges in [*first.values(), *second.values()]]
        assert len({id(driver) for driver in drivers}) == 4
        assert len({id(driver._detectors[-1]) for driver in drivers}) == 1

    def test_all_problems_at_once(self, own: Path, tmp_path: Path) -> None:
        """Every source's problems are named."""
        other = tmp_path / "other.yaml"
        other.write_text("version: 1\nclasses: []\n", encoding="utf-8")
        key = ClientKey(name="a", hash="sha256:" + "0" * 64, security_class=str(other))
        settings = self.settings(own, "missing").model_copy(update={"keys": (key,)})
        with pytest.raises(ConfigurationError) as caught:
            Loader(settings, None)()
        found = "\n".join(caught.value.problems)
        assert "no security class `missing`" in found
        assert str(other) in found

    def test_the_scorer_notes_nothing(self, own: Path) -> None:
        """What only scores writes no row and logs no event, and judges to the end."""
        judges = Loader(self.settings(own), None)()["critical"]
        with capture_logs() as logs:
            verdict = judges.scorer.check(
                "The key is AKIAIOSFODNN7EXAMPL2. " + "All is well. " * 99
            )
        assert verdict.intended == "block"
        assert verdict.coverage.complete
        assert logs == []


class TestJournal:
    """Where rows go."""

    def test_none(self) -> None:
        """The word `none` means no journal."""
        assert open_journal(ServerSettings(journal=NOTHING)) is None

    def test_a_path(self, tmp_path: Path) -> None:
        """A path is a SQLite file."""
        path = tmp_path / "rows.sqlite3"
        assert isinstance(open_journal(ServerSettings(journal=str(path))), Journal)
        assert path.exists()

    def test_the_demos_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A demonstration's rows do not mix with real ones, unless they are told to."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        open_journal(ServerSettings(demo=True))
        open_journal(ServerSettings())
        names = {path.name for path in (tmp_path / "clearance").glob("*.sqlite3")}
        assert names == {"demo.sqlite3", "journal.sqlite3"}


class TestLive:
    """The live risk of a server's classes."""

    def load(self, **settings: Any) -> tuple[Loader, dict[str, Judges]]:
        """Return a loader of the built-in class `public`, and what it loaded."""
        loader = Loader(ServerSettings(**settings), None)
        return loader, loader()

    def test_it_is_followed_by_default(self) -> None:
        """As the class says, in memory."""
        _, judges = self.load()
        assert judges["public"].guard._live is not None
        assert judges["public"].scorer._live is None

    def test_it_can_be_left(self) -> None:
        """By a setting."""
        _, judges = self.load(live=NOTHING)
        assert judges["public"].guard._live is None

    def test_a_reload_forgets_nothing(self) -> None:
        """What was seen before counts after."""
        loader, judges = self.load()
        judges["public"].guard.check("Water the basil from below.")
        live: Any = loader()["public"].guard._live
        assert live.state().exchanges == 1

    def test_a_file_outlives_the_process(self, tmp_path: Path) -> None:
        """Closed, and opened again."""
        place = str(tmp_path / "live.sqlite3")
        loader, judges = self.load(live=place)
        judges["public"].guard.check("Water the basil from below.")
        loader.close()
        again, judges = self.load(live=place)
        live: Any = judges["public"].guard._live
        assert live.state().exchanges == 1
        again.close()

"""What of a guarded model's answers a cache keeps, and what of it is said again."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain", reason="langchain is not installed")

from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

from guard.engine import Guard
from guard.journal.store import Journal
from tests.adapters.langchain.subjects import PROMPT
from tests.conftest import WordDetector, new_class, new_guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from guard.detectors.base import Finding, Passage

FINE = "Ferns grow in the shade."


@dataclass
class Live:
    """Says what it is told to say of the live risk."""

    posture: str = "normal"
    rates: dict[str, float] = field(default_factory=dict)

    def priors(self, conversation: str | None = None) -> Mapping[str, float]:
        """Return the priors, which are those of a conversation where there is one."""
        return {**self.rates, **({"to_block": 0.5} if conversation else {})}

    def observe(self, evidence: Mapping[str, float], *, conversation: str | None = None) -> object:
        """Learn nothing."""
        del evidence, conversation
        return None


class Flaky(WordDetector):
    """Fails while `down`."""

    down = True

    def __call__(self, passage: Passage) -> list[Finding]:
        """Fail, or find words."""
        if self.down:
            raise RuntimeError("out of memory")
        return super().__call__(passage)


class Counted(FakeListChatModel):
    """Counts how often it is asked."""

    asked: list[Any] = []  # noqa: RUF012  # pydantic copies it

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(messages)
        return super()._generate(messages, *args, **kwargs)


async def said(model: Any, how: str, prompt: str = PROMPT, **config: Any) -> str:
    """Ask in one of two ways."""
    if how == "invoke":
        return str(model.invoke(prompt, config).content)
    return str((await model.ainvoke(prompt, config)).content)


how = pytest.mark.parametrize("how", ["invoke", "ainvoke"])


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    """Return a cache that is the framework's, so that the models need not name it."""
    kept = InMemoryCache()
    set_llm_cache(kept)
    yield kept
    set_llm_cache(None)


def following(live: Live, *answers: str) -> tuple[Any, Counted]:
    """Return a guarded model whose guard follows the live risk, and the one in it."""
    inner = Counted(responses=list(answers) or [FINE])
    return Guard(new_class(), (WordDetector(),), live=live).wrap(inner), inner


@how
async def test_an_answer_is_kept(how: str, cache: InMemoryCache, guard: Guard) -> None:
    """What passes, or is refused for what it says, is not asked for again."""
    for answer, expected in ((FINE, FINE), ("They zblock.", "[blocked]")):
        cache.clear()
        inner = Counted(responses=[answer])
        model = guard.wrap(inner)
        assert [await said(model, how) for _ in range(2)] == [expected] * 2
        assert len(inner.asked) == 1


@how
@pytest.mark.parametrize("posture", ["quarantine", "fallback"])
async def test_nothing_kept_is_said_in_quarantine(
    how: str, posture: str, cache: InMemoryCache
) -> None:
    """Neither is what was said meanwhile kept."""
    live = Live()
    model, _ = following(live)
    assert await said(model, how) == FINE
    before = len(cache._cache)
    live.posture = posture
    assert [await said(model, how, prompt) for prompt in (PROMPT, "Else?")] == ["[blocked]"] * 2
    assert len(cache._cache) == before
    live.posture = "normal"
    assert [await said(model, how, prompt) for prompt in (PROMPT, "Else?")] == [FINE] * 2


@how
@pytest.mark.usefixtures("cache")
async def test_what_passed_at_other_risks_is_judged_again(how: str) -> None:
    """In a conversation that went bad, too."""
    live = Live()
    model, inner = following(live)
    talk: Any = model | RunnableLambda(lambda message: message)
    await said(model, how)
    live.rates = {"to_block": 0.9}
    await said(model, how)
    await said(talk, how, configurable={"thread_id": "garden"})
    await said(talk, how, configurable={"thread_id": "garden"})
    assert len(inner.asked) == 3


@how
async def test_an_alarm_while_the_model_answers(how: str, cache: InMemoryCache) -> None:
    """What was judged by something else than the key says is not kept."""
    live = Live()

    class Alarming(Counted):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            live.posture = "quarantine"
            return super()._generate(*args, **kwargs)

    model = Guard(new_class(), (WordDetector(),), live=live).wrap(Alarming(responses=[FINE]))
    assert await said(model, how) == "[blocked]"
    assert not cache._cache


@how
@pytest.mark.parametrize("on_failure", ["block", "flag"])
@pytest.mark.parametrize("side", ["answer", "input"])
@pytest.mark.parametrize("streaming", [False, True])
async def test_what_nobody_judged_is_not_kept(
    how: str, on_failure: str, side: str, streaming: Any, cache: InMemoryCache
) -> None:
    """A detector that was down for a moment neither blocks nor lets pass for good."""
    detector = Flaky()
    limits = {"to_block": {"act": 0.9}}
    given: dict[str, Any] = {"input": {"limits": limits}} if side == "input" else {}
    guard = Guard(new_class(on_failure=on_failure, **given), (detector,))
    inner = Counted(responses=[FINE])
    model = guard.wrap(inner, streaming=streaming)
    assert await said(model, how) == ("[blocked]" if on_failure == "block" else FINE)
    assert not cache._cache
    detector.down = False
    assert await said(model, how) == FINE
    assert cache._cache


async def test_what_the_journal_did_not_take_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: InMemoryCache
) -> None:
    """A journal that cannot be written to stops an answer for the time being."""
    with closing(Journal(tmp_path / "journal.db")) as journal:
        guard = new_guard(journal=journal)
        model = guard.wrap(Counted(responses=["They zflag."]))

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(journal, "write", fail)
            assert await said(model, "invoke") == "[blocked]"
        assert not cache._cache
        assert await said(model, "invoke") == "They zflag."


@how
async def test_a_model_without_a_cache(how: str, make_guard: Callable[..., Guard]) -> None:
    """It asks each time, also where others have a cache; one that is missed is an error."""
    inner = Counted(responses=[FINE], cache=False)
    model = make_guard().wrap(inner)
    set_llm_cache(InMemoryCache())
    try:
        assert [await said(model, how) for _ in range(2)] == [FINE] * 2
    finally:
        set_llm_cache(None)
    assert len(inner.asked) == 2
    with pytest.raises(ValueError, match="no cache found"):
        await said(make_guard().wrap(Counted(responses=[FINE], cache=True)), how)


def test_it_can_be_emptied(guard: Guard, cache: InMemoryCache) -> None:
    """For one call of a model, the cache is the one that it stands for."""
    from guard.adapters.langchain_caches import Cautious, state_of
    from guard.exchange import Exchange

    guard.wrap(Counted(responses=[FINE])).invoke(PROMPT)
    deployment = guard.session(Exchange(()), stream=False).deployment
    standing = Cautious(cache, deployment)
    assert standing.state == state_of(deployment)
    standing.clear()
    assert not cache._cache

"""A cache that keeps an answer only where the guard would give it again, for one call of a model.

The framework caches what the guarded model gives. What was blocked because a detector was down is
not to be said again once it is up, and nothing is delivered while an alarm holds everything back,
whatever was cached before.

This module does not know models, and not how an answer is judged.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from langchain_core.caches import BaseCache

if TYPE_CHECKING:
    from langchain_core.caches import RETURN_VAL_TYPE

    from guard.steps import Deployment
    from guard.verdict import Verdict


def state_of(deployment: Deployment) -> str:
    """Return a digest of everything by which an answer is judged, whatever it says."""
    parts = (
        deployment.security_class.model_dump_json(),
        deployment.messages.model_dump_json(),
        repr(sorted(deployment.detectors.items())),
        repr(sorted(deployment.priors.items())),
        repr(deployment.quarantined),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Cautious(BaseCache):
    """Stands for a cache in one call of a model.

    Args:
        kept: where answers are kept.
        deployment: by what the answer would be judged at the call's start.

    Attributes:
        state: the digest of `deployment`, which is part of the cache's key.
    """

    def __init__(self, kept: BaseCache, deployment: Deployment) -> None:
        """Know of no answer yet."""
        self.state = state_of(deployment)
        self._kept = kept
        self._open = not deployment.quarantined

    def note(self, verdict: Verdict, deployment: Deployment) -> None:
        """Take in a verdict of the call; where it may be another one next time, keep nothing.

        Args:
            verdict: on the answer, or on what the model is given.
            deployment: by what it was judged.
        """
        actions = deployment.security_class.journal.actions
        wanted = deployment.journalled and verdict.intended in actions
        # A journal that could not be written to blocks as well as a detector that failed.
        unwritten = wanted and verdict.record is None
        if verdict.coverage.failures or unwritten:
            self._open = False

    def judged_by(self, deployment: Deployment) -> None:
        """Take in by what the answer was judged; the key says something else if that has changed.

        Args:
            deployment: as it was when the answer had come.
        """
        if state_of(deployment) != self.state:
            self._open = False

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Return what is kept, if anything may be delivered."""
        return self._kept.lookup(prompt, llm_string) if self._open else None

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """As `lookup`, asynchronously."""
        return await self._kept.alookup(prompt, llm_string) if self._open else None

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep an answer, unless it may be another one next time."""
        if self._open:
            self._kept.update(prompt, llm_string, return_val)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """As `update`, asynchronously."""
        if self._open:
            await self._kept.aupdate(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        """Forget everything."""
        self._kept.clear(**kwargs)

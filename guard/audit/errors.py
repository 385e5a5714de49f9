"""The errors of audits, profiles, keys and tags.

    guard.errors.GuardError
     ├─ guard.errors.ConfigurationError
     │   ├─ ProfileError        a risk profile cannot be read or written
     │   └─ KeyFileError        a key cannot be read or written
     ├─ AuditError              an audit cannot begin, go on or be read
     │   └─ BackendError        the backend cannot be asked, so that the audit stops
     └─ TagError                a tag does not let this deployment pass
         ├─ MalformedTag        it is no tag, or not a whole one
         │   └─ UnreadableTag   ... and its file cannot even be read
         ├─ UnknownSigner       nobody who is trusted has signed it
         ├─ BadSignature        it was altered after it was signed
         ├─ TagNotYetValid      its time has not begun
         ├─ TagExpired          its time is over
         ├─ WrongModel          it was made for another model
         ├─ WrongPrompt         ... for another system prompt
         ├─ WrongAdapter        ... for other adapter weights
         ├─ WrongTools          ... for other tools
         ├─ WrongSampling       ... for other sampling parameters
         ├─ WrongDetectors      its profile was measured by other detectors
         ├─ WrongProbes         its profile was measured with other probes
         └─ DeploymentRefused   the class asks for more than the tag shows
             └─ ClassExceeded   ... and the tag was signed for a lower class

Every message says how to mend the cause. This module does not know when they are raised.
"""

# ruff: noqa: N818  # they read as `except TagExpired`

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.errors import ConfigurationError, GuardError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.audit.deploy import Unmet


class ProfileError(ConfigurationError):
    """A risk profile cannot be read or written."""


class KeyFileError(ConfigurationError):
    """A key cannot be read or written."""


class AuditError(GuardError):
    """An audit cannot begin, go on or be read."""


class BackendError(AuditError):
    """The backend cannot be asked, so that the audit stops; it can be resumed."""


class TagError(GuardError):
    """A tag does not let this deployment pass."""


class MalformedTag(TagError):
    """It is no tag, or not a whole one."""


class UnreadableTag(MalformedTag):
    """The tag's file cannot be read, so that nothing is known of the tag."""


class UnknownSigner(TagError):
    """Nobody who is trusted has signed the tag."""


class BadSignature(TagError):
    """The tag was altered after it was signed."""


class TagNotYetValid(TagError):
    """The tag's time has not begun."""


class TagExpired(TagError):
    """The tag's time is over."""


class WrongModel(TagError):
    """The tag was made for another model."""


class WrongPrompt(TagError):
    """The tag was made for another system prompt."""


class WrongAdapter(TagError):
    """The tag was made for other adapter weights."""


class WrongTools(TagError):
    """The tag was made for other tools."""


class WrongSampling(TagError):
    """The tag was made for other sampling parameters."""


class WrongDetectors(TagError):
    """The tag's profile was measured by other detectors."""


class WrongProbes(TagError):
    """The tag's profile was measured with other probes."""


class DeploymentRefused(TagError):
    """A class asks for more than was shown.

    Attributes:
        unmet: every limit that is not met, figure beside limit.
    """

    def __init__(self, message: str, unmet: Sequence[Unmet] = ()) -> None:
        """Put each unmet limit on a line of its own below `message`."""
        self.unmet: tuple[Unmet, ...] = tuple(unmet)
        self._message = message
        super().__init__("\n".join([message, *(f"  {item}" for item in self.unmet)]))

    def __reduce__(self) -> tuple[type[DeploymentRefused], tuple[str, tuple[Unmet, ...]]]:
        return type(self), (self._message, self.unmet)


class ClassExceeded(DeploymentRefused):
    """The tag was signed for a lower class."""

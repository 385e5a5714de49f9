"""Which model stands behind the server, as a tag says it.

This module does not know whether it may be deployed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from guard.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from guard.audit.profile import Fingerprint
    from guard.server.settings import Deployed


def fingerprint_of(deployed: Deployed | None) -> Fingerprint | None:
    """Return the fingerprint of what is deployed, `None` where nobody says what that is.

    Raises:
        ConfigurationError: a file of it cannot be read.
        InputError: it cannot be hashed.
    """
    if deployed is None:
        return None
    from guard.audit.profile import Fingerprint  # noqa: PLC0415  # only where it is needed

    return Fingerprint.of(
        deployed.model,
        system_prompt=_text("system_prompt", deployed.system_prompt),
        adapter=deployed.adapter,
        tools=_tools(deployed.tools),
    )


def _text(name: str, path: Path | None) -> str | None:
    """Return a file's exact text, `None` where there is no file."""
    if path is None:
        return None
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigurationError(f"`deployed.{name}`: {path} cannot be read: {reason}") from error


def _tools(path: Path | None) -> list[Any] | None:
    text = _text("tools", path)
    if text is None:
        return None
    try:
        tools = json.loads(text)
    except (ValueError, RecursionError):
        tools = None
    if not isinstance(tools, list):
        raise ConfigurationError(f"`deployed.tools`: {path} must hold a JSON list of the tools")
    return tools

"""A server that speaks OpenAI's chat completions, asked patiently.

What passes (timeouts, broken connections, 429, 5xx) is tried again, as long as the server's
`Retry-After` or a growing, jittered pause says, within bounds. What does not pass stops the audit
(a wrong key or model) or leaves one probe unanswered (the server declines this very question).

This module does not know probes. It keeps no key and shows none.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from guard.audit.backends import UnansweredError, message_of, reply_of
from guard.audit.errors import BackendError
from guard.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tenacity import RetryCallState

    from guard.audit.answers import Said

_PASSING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same question may get an answer."""

_STOPPING: Final = frozenset({401, 402, 404, 405})
"""Statuses that every other question would get too."""

_SPENT: Final = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes of a 429 that no waiting helps against."""

_NEWER_LIMIT: Final = "max_completion_tokens"
"""What newer models call the limit of tokens, and say so in a 400."""

_LONGEST_MESSAGE: Final = 200

_KEY: Final = re.compile(r"[!-~]*")
"""What a header can hold of a key."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long one question is tried.

    Attributes:
        tries: at most, the first included.
        first: seconds before the second try; doubled each time.
        longest: seconds that are waited at most, whatever the server asks for.
        timeout: seconds that the server has for each try, to the end of its answer.
    """

    tries: int = 6
    first: float = 1.0
    longest: float = 120.0
    timeout: float = 120.0


class _PassingError(Exception):
    """What may go better the next time; holds the seconds that the server asks to wait."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class OpenAIBackend:
    """Asks a server at `URL/chat/completions`.

    Args:
        url: as SDKs call it `base_url`; `/v1` is added where there is no path.
        model: the model's id.
        key: sent as a bearer token; `""` for none.
        max_tokens: the longest answer.
        temperature: `None` leaves it to the server.
        patience: with what fails.

    Raises:
        MissingExtraError: `httpx2` or `tenacity` is not installed.
        BackendError: `url` is none, or no header can hold `key`.
    """

    takes_tools = True
    at_once: int | None = None

    def __init__(  # noqa: PLR0913  # what a request is made of
        self,
        url: str,
        model: str,
        *,
        key: str = "",
        max_tokens: int = 600,
        temperature: float | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Open a client; nothing is sent yet."""
        try:
            import httpx2  # noqa: PLC0415  # an optional extra
            import tenacity  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtraError(error.name or "httpx2", "audit") from error
        self._patience = patience or Patience()
        self._body: dict[str, Any] = {"model": model}
        if temperature is not None:
            self._body["temperature"] = temperature
        self._limit = ("max_tokens", max_tokens)
        if not _KEY.fullmatch(key):
            # The client would show it in its error.
            raise BackendError(
                "the key holds a line end, a space, or a letter beyond ASCII, which no header "
                "takes: set its variable anew (`--key-env`)"
            )
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._url = _endpoint(url)
        self._broken = (httpx2.TransportError, httpx2.DecodingError, TimeoutError)
        # How many are asked at a time is not for the client to say.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx2.AsyncClient(
            headers=headers, timeout=self._patience.timeout, limits=limits
        )
        self._again = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._patience.tries),
            wait=self._pause,
            retry=tenacity.retry_if_exception_type(_PassingError),
            reraise=True,
        )

    async def reply(self, said: Sequence[Said], tools: Sequence[Mapping[str, Any]]) -> Said:
        """Return what the model says next; see `guard.audit.backends.Backend`."""
        messages = [message_of(item) for item in said]
        body = self._body | {"messages": messages} | ({"tools": list(tools)} if tools else {})
        try:
            return await self._again.copy()(self._try, body)
        except _PassingError as error:
            tries = self._patience.tries
            raise BackendError(
                f"{self._url} gives no answer after {tries} tries: {error}. Run the same command "
                "again to go on; if the server asks for fewer requests, lower `--concurrency`"
            ) from error

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()

    async def _try(self, body: Mapping[str, Any]) -> Said:
        name, most = self._limit
        try:
            # The client counts each read anew, and a gateway may keep it waiting by drips.
            async with asyncio.timeout(self._patience.timeout):
                response = await self._client.post(self._url, json={**body, name: most})
        except self._broken as error:
            raise _PassingError(f"{type(error).__name__} {error}".strip()) from error
        if response.is_success:
            return _read(response.content)
        error_code, message = _error(response.content)
        if response.status_code == 400 and _NEWER_LIMIT in message and name != _NEWER_LIMIT:
            self._limit = (_NEWER_LIMIT, most)
            return await self._try(body)
        raise self._failure(response.status_code, error_code, message, response.headers)

    def _failure(
        self, status: int, code: str, message: str, headers: Mapping[str, str]
    ) -> Exception:
        said = f"HTTP {status}" + (f" ({message})" if message else "")
        if status in _PASSING and code not in _SPENT:
            wait = _seconds(headers.get("retry-after", ""))
            if wait is not None and wait > self._patience.longest:
                return BackendError(
                    f"{self._url} asks to wait {wait:.0f} seconds: {said}. Run the same command "
                    "again then"
                )
            return _PassingError(said, wait)
        if status in _STOPPING or not 400 <= status < 500 or code in _SPENT:
            return BackendError(f"{self._url}: {said}. Check URL, `--model` and `--key-env`")
        return UnansweredError(f"HTTP {status}" + (f" {code}" if code else ""))

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _PassingError) and error.wait is not None:
            return error.wait
        grown = self._patience.first * 2 ** (state.attempt_number - 1)
        # Jitter, so that many questions that failed together do not come back together.
        return float(min(self._patience.longest, grown) * random.uniform(0.5, 1.0))  # noqa: S311


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BackendError(f"`{url}` is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BackendError(f"`{url}` is no URL: write `openai:https://host/v1`")
    if parts.username or parts.password:
        raise BackendError("a URL with a password would be kept with the audit: use `--key-env`")
    path = parts.path.rstrip("/") or "/v1"
    path = path.removesuffix("/chat/completions")
    return parts._replace(path=f"{path}/chat/completions", fragment="").geturl()


def _read(content: bytes) -> Said:
    """Return the first choice of a chat completion."""
    try:
        choice = json.loads(content)["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        # A gateway's page, or an answer that broke off.
        raise _PassingError("an answer that is no chat completion") from error
    return reply_of(message, str(finish or ""))


def _error(content: bytes) -> tuple[str, str]:
    """Return code and message of an error, as far as they can be read."""
    try:
        error = json.loads(content)["error"]
        code, message = error.get("code") or error.get("type") or "", error.get("message") or ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    kept = re.sub(r"[^a-z0-9_.-]", "", str(code).lower())[:40]
    return kept, " ".join(str(message).split())[:_LONGEST_MESSAGE]


def _seconds(text: str) -> float | None:
    """Return the seconds of a `Retry-After`, which may be a date; `None` where it is neither."""
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text.strip(), re.ASCII):
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())

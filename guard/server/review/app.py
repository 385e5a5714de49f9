"""The review pages as an ASGI app: who may see them, which page is asked for, what a form does.

A page is shown to whoever is signed in, and a form counts if it is of one of that session's own
pages. Everything else of a page is in `guard.server.review.views`.

This module does not know how a page looks, nor where rows and labels are kept.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from guard.audit.errors import AuditError
from guard.categories import CATEGORIES
from guard.errors import GuardError, InputError, JournalError
from guard.journal.store import place_of
from guard.log import Log
from guard.policy import BUILTIN
from guard.server.logs import told
from guard.server.review import flags, views
from guard.server.review.pages import FILES, HEADERS, Templates, file
from guard.server.review.query import ACTIONS, DELIVERED, Query
from guard.server.review.sessions import SECONDS, Keys, Link, Session, Sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import Receive, Scope, Send

    from guard.journal.record import Record
    from guard.journal.store import Journal
    from guard.server.review.labels import Known, LabelFile

PATH: Final = "/guard/review"
"""Under which all pages lie."""

PAGE: Final = 50
"""Rows on a page."""

SCANNED: Final = 5000
"""Of so many rows at most flags are counted and looked for."""

COUNTED: Final = 20_000
"""Of so many rows at most the categories are counted."""

_THREADS: Final = 4
"""Pages that are made at a time; the others wait."""

_LARGEST: Final = 16 << 10
"""Bytes of a form."""

_FIELDS: Final = 20
_FORM: Final = "application/x-www-form-urlencoded"
_ID: Final = r"[0-9a-f]{32}"
_LOCAL: Final = ("127.0.0.1", "localhost")
_SAYS: Final = ("right", "wrong", "back")

_log: Final = Log()


class Problem(Exception):  # noqa: N818  # it is what a page tells, and no fault
    """What keeps a page from being shown, told on a page of its own.

    Args:
        status: the HTTP status.
        title: in a few words.
        text: what is wrong and how to mend it.
    """

    def __init__(self, status: int, title: str, text: str) -> None:
        """Keep them."""
        super().__init__(title)
        self.status = status
        self.title = title
        self.text = text


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of somebody who is signed in.

    Attributes:
        query: what its address asks for.
        session: whose it is.
        row: the row's id in its path, `""` without.
        form: what was sent.
        done: what its address says was done just now.
    """

    query: Query
    session: Session
    row: str
    form: Mapping[str, str]
    done: str


class _Route(NamedTuple):
    """A page.

    Attributes:
        method: of its requests; `HEAD` counts as `GET`.
        path: behind `PATH`, as a pattern.
        template: of its path, for logs and counts.
        answer: makes it.
    """

    method: str
    path: re.Pattern[str]
    template: str
    answer: Callable[[Asked], Response]


@dataclass(frozen=True, slots=True)
class _Template:
    """A route as logs and counts name it; a path itself may be anything."""

    path: str


class Review:
    """The pages.

    Args:
        journal: where the rows are; it is only read.
        labels: where labels go; `None` for pages to read alone.
        door: who may sign in, by a key or by the link.
        cookie: the name of the session's cookie.
        local: whether only programs of this machine are served, under its own names.
        sessions: who is signed in.
    """

    def __init__(  # noqa: PLR0913  # each is one part
        self,
        journal: Journal,
        labels: LabelFile | None,
        door: Keys | Link,
        *,
        cookie: str = "clearance_review",
        local: bool = False,
        sessions: Sessions | None = None,
    ) -> None:
        """Read nothing yet."""
        self._journal = journal
        self._labels = labels
        self._door = door
        self._cookie = cookie
        self._local = local
        self._sessions = sessions or Sessions()
        # Of its own: the loop's threads write the journal, for which answers wait.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="guard-review")
        self._index = flags.FlagIndex(journal)
        self._templates = Templates(
            base=PATH,
            actions=ACTIONS,
            delivered_ways=DELIVERED,
            categories=tuple(CATEGORIES),
            classes=tuple(sorted(file.stem for file in BUILTIN.glob("*.yaml"))),
            by_key=isinstance(door, Keys),
            labelling=labels is not None,
            labels_path=str(labels.path) if labels else "",
        )
        self._routes = (
            _Route("GET", re.compile(""), PATH, self._rows),
            _Route("GET", re.compile(f"/row/(?P<row>{_ID})"), f"{PATH}/row/{{id}}", self._row),
            _Route("GET", re.compile("/next"), f"{PATH}/next", self._next),
            _Route("GET", re.compile("/overview"), f"{PATH}/overview", self._overview),
            _Route("POST", re.compile("/label"), f"{PATH}/label", self._label),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; whatever goes wrong is told on a page."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        except Problem as problem:
            response = self._told(problem)
        except GuardError as error:
            response = self._told(_problem(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, somebody waits for a page
            _log.error("guard.request_failed", **told(error))
            response = self._told(
                Problem(500, "Something went wrong here", "The log has it. Try again.")
            )
        response.headers.update(HEADERS)
        await response(scope, receive, send)

    def refused(self, status: int, text: str) -> Response:
        """Return the page of a request that was refused before it came here."""
        response = self._told(Problem(status, HTTPStatus(status).phrase, text))
        response.headers.update(HEADERS)
        return response

    def _told(self, problem: Problem) -> Response:
        return self._templates.page(
            "problem", problem.status, title=problem.title, text=problem.text, session=None
        )

    # Who asks for what.

    async def _answer(self, request: Request) -> Response:
        if self._local:
            _check_host(request)
        if not is_page(request.scope["path"]):
            raise _nowhere()
        path = request.scope["path"].removeprefix(PATH).removesuffix("/")
        method = "GET" if request.method == "HEAD" else request.method
        request.scope["route"] = _Template(f"{PATH}/…")
        if method == "GET" and path.removeprefix("/") in FILES:
            return file(path.removeprefix("/"))
        if path == "/sign-in":
            request.scope["route"] = _Template(f"{PATH}/sign-in")
            return await self._sign_in(request, method)
        if path == "/enter":
            request.scope["route"] = _Template(f"{PATH}/enter")
            return self._enter(request, method)
        if path == "/sign-out":
            request.scope["route"] = _Template(f"{PATH}/sign-out")
            return await self._sign_out(request, method)
        return await self._page(request, method, path)

    async def _page(self, request: Request, method: str, path: str) -> Response:
        found = [(route, match) for route in self._routes if (match := route.path.fullmatch(path))]
        if not found:
            raise _nowhere()
        route, match = found[0]
        request.scope["route"] = _Template(route.template)
        if method != route.method:
            raise Problem(405, "That cannot be done here", "Begin with the rows.")
        session = self._session(request)
        if session is None:
            return self._please_sign_in(request)
        form = await self._form(request, session) if method == "POST" else {}
        query = Query.parse(_query(form) if form else request.query_params)
        asked = Asked(
            query,
            session,
            match.groupdict().get("row") or "",
            form,
            request.query_params.get("done", ""),
        )
        context = contextvars.copy_context()

        def make() -> Response:
            return context.run(route.answer, asked)

        return await asyncio.get_running_loop().run_in_executor(self._threads, make)

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(request.cookies.get(self._cookie, ""))

    def _please_sign_in(self, request: Request) -> Response:
        if request.method == "POST":
            raise Problem(
                403,
                "You are not signed in any more",
                "Nothing was changed. Sign in again and say it once more.",
            )
        return self._templates.page("sign_in", 401, wrong=False, session=None)

    async def _form(self, request: Request, session: Session) -> Mapping[str, str]:
        """Return a form's fields.

        Raises:
            Problem: it is not of this session's pages, or too large.
        """
        _check_origin(request)
        form = await _fields(request)
        if not session.sent(form.get("token", "")):
            raise Problem(
                403,
                "This form is not of your session",
                "Nothing was changed. Open the page again and say it once more.",
            )
        return form

    # Signing in and out.

    async def _sign_in(self, request: Request, method: str) -> Response:
        if method == "GET":
            if self._session(request) is not None:
                return _see(PATH)
            return self._templates.page("sign_in", wrong=False, session=None)
        if method != "POST" or isinstance(self._door, Link):
            raise Problem(
                405, "That cannot be done here", "Open the link that the command printed."
            )
        _check_origin(request)
        form = await _fields(request)
        if not self._door.opens(form.get("key", "")):
            _log.warning("guard.review_refused")
            return self._templates.page("sign_in", 403, wrong=True, session=None)
        return self._let_in(request, _see(PATH))

    def _enter(self, request: Request, method: str) -> Response:
        if not isinstance(self._door, Link) or method != "GET":
            raise _nowhere()
        if request.method == "HEAD":
            return Response()
        if not self._door.opens(request.query_params.get("secret", "")):
            if self._session(request) is not None:
                return _see(PATH)
            raise Problem(
                403,
                "This link does not open the pages",
                "It opens them once, in the browser that was first. End the command and start it "
                "again for another link.",
            )
        # A browser that comes here from another site's page sends no cookie to where it is sent.
        if request.headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return self._let_in(request, _see(PATH))
        return self._let_in(request, self._templates.page("entered", session=None))

    def _let_in(self, request: Request, response: Response) -> Response:
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith(
            "https:"
        )
        response.set_cookie(
            self._cookie,
            self._sessions.begin(),
            max_age=round(SECONDS),
            path=PATH,
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        _log.info("guard.review_signed_in")
        return response

    async def _sign_out(self, request: Request, method: str) -> Response:
        if method != "POST":
            raise Problem(405, "That cannot be done here", "Begin with the rows.")
        session = self._session(request)
        if session is not None:
            await self._form(request, session)
            self._sessions.end(request.cookies[self._cookie])
        response = self._templates.page("signed_out", session=None)
        response.delete_cookie(self._cookie, path=PATH, httponly=True, samesite="strict")
        return response

    # Pages. Each is made on a thread.

    def _known(self) -> Known:
        return {} if self._labels is None else self._labels.known()

    def _rows(self, asked: Asked) -> Response:
        known, query = self._known(), asked.query
        shown = self._unlabelled(query, known) if query.unlabelled else self._all(query, known)
        return self._templates.page("rows", rows=shown, done=asked.done, session=asked.session)

    def _all(self, query: Query, known: Known) -> views.Rows:
        filters = query.filters()
        records = list(self._journal.list(limit=PAGE + 1, after=query.place(), **filters))
        lines = [views.line_of(record, flags.flags_in(record), known) for record in records[:PAGE]]
        older = None
        if len(records) > PAGE:
            older = query.at(place_of(records[PAGE - 1]))
        return views.Rows(query, tuple(lines), self._journal.count(**filters), older)

    def _unlabelled(self, query: Query, known: Known) -> views.Rows:
        """Return a page of rows with a flag that nobody has labelled yet."""
        filters = query.filters()
        places = self._journal.places(SCANNED, after=query.place(), **filters)
        wanted = []
        for place in views.places_of(self._index.of(places), known):
            wanted.append(place)
            if len(wanted) > PAGE:
                break
        older = query.at(wanted[PAGE - 1]) if len(wanted) > PAGE else None
        if older is None and len(places) == SCANNED:
            older = query.at(places[-1])
        records = self._journal.rows_at(wanted[:PAGE])
        lines = [views.line_of(record, flags.flags_in(record), known) for record in records]
        return views.Rows(query, tuple(lines), None, older)

    def _row(self, asked: Asked) -> Response:
        record, known, query = self._record(asked.row), self._known(), asked.query.first()
        queue = self._queue(query) if self._labels else []
        return self._templates.page(
            "row",
            row=views.row_of(record, known),
            query=query,
            left=views.left(queue, known),
            total=len(queue),
            session=asked.session,
        )

    def _next(self, asked: Asked) -> Response:
        return _see(self._following(asked.query.first(), ("", "")))

    def _following(self, query: Query, key: tuple[str, str]) -> str:
        """Return where the flag is that comes after that of `key`, else where rows are."""
        flag = flags.following(self._queue(query), key, self._known())
        if flag is None:
            end = str(query)
            return f"{PATH}{end}{'&' if end else '?'}done=all"
        return f"{PATH}/row/{flag.row}{query}#flag-{flag.category}"

    def _queue(self, query: Query) -> list[flags.Flag]:
        places = self._journal.places(SCANNED, **query.filters())
        return flags.queue_of((row for _, row in self._index.of(places)), query.only)

    def _record(self, row: str) -> Record:
        """Return a row.

        Raises:
            JournalError: the journal cannot be read.
            Problem: the row is not there any more.
        """
        try:
            return self._journal.get(row)
        except JournalError:
            self._journal.count()  # raises where not the row but the journal is the trouble
        raise Problem(
            404,
            "This row is not there any more",
            "It was deleted, as guard flagged purge does, or it was never in this journal.",
        )

    def _label(self, asked: Asked) -> Response:
        form, labels = asked.form, self._labels
        if labels is None:
            raise Problem(403, "These pages are for reading only", _HOW_TO_LABEL)
        category, text, says = (form.get(name, "") for name in ("category", "text", "say"))
        record = self._record(form.get("row", ""))
        flag = next((f for f in flags.flags_in(record).flags if f.category == category), None)
        if says not in _SAYS or flag is None:
            raise Problem(400, "There is no such flag", "Open the row again.")
        if flag.text != text:
            raise Problem(
                409,
                "The row has changed since you read it",
                "Nothing was kept. Open it again and say what is true of it now.",
            )
        query = asked.query.first()
        if says == "back":
            labels.take_back(*flag.key)
            return _see(f"{PATH}/row/{record.id}{query}#flag-{category}")
        labels.say(record, category, right=says == "right")
        return _see(self._following(query, flag.key))

    def _overview(self, asked: Asked) -> Response:
        filters = asked.query.filters()
        overview = views.overview_of(
            asked.query.first(),
            days=self._journal.tally("day", "action", **filters),
            classes=self._journal.tally("security_class", **filters),
            models=self._journal.tally("model", **filters),
            reasons=self._journal.reasons(COUNTED, **filters),
            known=self._known(),
        )
        return self._templates.page("overview", overview=overview, session=asked.session)


_HOW_TO_LABEL: Final = (
    "To say which flags were right, start them with a file for labels: guard flagged review "
    "LABELS.jsonl, or labels under review in the settings file of guard serve."
)


def is_page(path: str) -> bool:
    """Return whether a path is that of a page."""
    return path == PATH or path.startswith(f"{PATH}/")


def _query(form: Mapping[str, str]) -> Mapping[str, str]:
    """Return the filters of the page that a form was on.

    Raises:
        Problem: there are more than a page has.
    """
    try:
        return dict(parse_qsl(form.get("query", "").removeprefix("?"), max_num_fields=_FIELDS))
    except ValueError:
        raise _unreadable() from None


def _nowhere() -> Problem:
    return Problem(404, "There is no such page", "Begin with the rows.")


def _see(address: str) -> Response:
    return RedirectResponse(address, HTTPStatus.SEE_OTHER)


def _check_host(request: Request) -> None:
    """See that a request names this machine, and no name that a site has for its address.

    Raises:
        Problem: it does not.
    """
    names = request.headers.getlist("host")
    if len(names) != 1 or _host_of(f"//{names[0]}") not in _LOCAL:
        raise Problem(
            421,
            "This server is there for this machine alone",
            "Open it under 127.0.0.1 or localhost, as the command printed it.",
        )


def _check_origin(request: Request) -> None:
    """See that a form was sent by a page of this server.

    Raises:
        Problem: it was not.
    """
    site = request.headers.get("sec-fetch-site")
    origins, hosts = request.headers.getlist("origin"), request.headers.getlist("host")
    own = len(origins) == 1 and [_netloc_of(origins[0])] == [host.lower() for host in hosts]
    if site not in (None, "same-origin") or (site is None and not own):
        raise Problem(
            403,
            "This form is of another site's page",
            "Nothing was changed. Where a proxy stands in front, have it pass on Host.",
        )


async def _fields(request: Request) -> Mapping[str, str]:
    """Return a form's fields.

    Raises:
        Problem: it is too large, or no form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise Problem(415, "This is no form", "Use the buttons of the pages.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST:
            raise Problem(413, "This form is too large", "Use shorter filters.")
    try:
        return dict(
            parse_qsl(
                body.decode("ascii"),
                keep_blank_values=True,
                max_num_fields=_FIELDS,
                errors="replace",
            )
        )
    except ValueError:
        raise _unreadable() from None


def _unreadable() -> Problem:
    return Problem(400, "This form cannot be read", "Use the buttons of the pages.")


def _netloc_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _problem(error: GuardError) -> Problem:
    """Return how an error is told; its message says how to mend the cause."""
    if isinstance(error, JournalError):
        return Problem(503, "The journal cannot be read", str(error))
    if isinstance(error, AuditError):
        return Problem(503, "The label was not kept", str(error))
    if isinstance(error, InputError):
        return Problem(400, "This cannot be done", str(error))
    return Problem(500, "Something went wrong here", str(error))


async def _lifespan(receive: Receive, send: Send) -> None:
    """Begin and end: there is nothing to open, and whoever made the parts closes them."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})

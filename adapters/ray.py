"""Ray: a callable class for `Dataset.map_batches`, and actors for `guard scan --engine ray`.

    ds.map_batches(Judge, fn_constructor_kwargs={"security_class": "public"}, concurrency=4)

Each actor loads one guard, once. Rows are judged one by one, so that a verdict does not depend on
how a dataset is cut into batches.

This module does not know how a text is judged, or where datasets come from.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from guard.engine import Guard
from guard.errors import InputError, MissingExtraError
from guard.exchange import Exchange
from guard.json_lines import parsed
from guard.scan.errors import ScanError
from guard.scan.local import AHEAD, died, quiet
from guard.scan.work import LineJudge

try:
    import ray
    from ray.exceptions import RayActorError, RayTaskError
except ImportError as error:
    raise MissingExtraError("ray", "ray") from error

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from guard.scan.reading import Line
    from guard.scan.work import Result, Settings
    from guard.security_class import SecurityClass
    from guard.verdict import Verdict

__all__ = ["COLUMNS", "Judge", "judged"]

COLUMNS: Final = ("guard_action", "guard_reasons", "guard_risks", "guard_text", "guard_error")
"""What `Judge` adds to a batch, each a column of texts.

`guard_action` is `allow`, `flag`, `rewrite` or `block` (of a class in shadow mode, what it would
do), or `error` where a row could not be judged; `guard_reasons` a JSON list of sentences;
`guard_risks` a JSON object, live risk in [0, 1] per category; `guard_text` what may be delivered,
null where that is nothing; `guard_error` why a row could not be judged, else null.
"""

ERROR: Final = "error"
"""The action of a row that could not be judged: neither an all-clear nor a block."""

_OBJECTS: Final = 2**28
"""Bytes for a local Ray's objects, which are lines and verdicts on their way."""

_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about a scan leaves the machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of its own next default
}


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a batch has what is judged; see `Judge`."""

    response: str
    prompt: str | None
    system: str | None
    exchange: str | None

    @property
    def names(self) -> list[str]:
        """Those that a batch must have."""
        if self.exchange is not None:
            return [self.exchange]
        return [name for name in (self.response, self.prompt, self.system) if name is not None]


class Judge:
    """Judges the rows of a batch; a copy that was sent elsewhere loads its guard there.

    Args:
        security_class: the class, as of `Guard.load`.
        response_column: has the answers; a null one is an error and no all-clear.
        prompt_column: has what they answer; a null one is unknown.
        system_column: has the system prompts, which must not leak.
        exchange_column: has whole exchanges as JSON, as the lines of `guard scan` have them;
            instead of the other columns.
        model: a classifier's directory, on the machine of the actor; the bundled one by default.

    Raises:
        ConfigurationError: class or model cannot be used.
    """

    def __init__(  # noqa: PLR0913  # each is one plain option
        self,
        security_class: str | Path | SecurityClass = "public",
        *,
        response_column: str = "response",
        prompt_column: str | None = None,
        system_column: str | None = None,
        exchange_column: str | None = None,
        model: str | Path | None = None,
    ) -> None:
        """Load the guard."""
        self._given = {"security_class": security_class, "model": model}
        self._columns = _Columns(response_column, prompt_column, system_column, exchange_column)
        self._guard = Guard.load(security_class, model=model, journal=None)

    def __reduce__(self) -> tuple[Any, ...]:
        columns = {f"{name}_column": value for name, value in asdict(self._columns).items()}
        return _judge, (self._given | columns,)

    def __call__(self, batch: Any) -> Any:
        """Return the batch with `COLUMNS` added, in its own format.

        Args:
            batch: arrays by name, a DataFrame of pandas or a Table of pyarrow.

        Raises:
            InputError: a column is missing, or one of `COLUMNS` is there already.
        """
        there = _names(batch)
        _check(there, self._columns.names)
        values = [_values(batch, name) for name in self._columns.names]
        rows = [
            self._row(dict(zip(self._columns.names, row, strict=True)))
            for row in zip(*values, strict=True)
        ]
        return _with(batch, {name: [_column_text(row[name]) for row in rows] for name in COLUMNS})

    def _row(self, values: Mapping[str, Any]) -> dict[str, str | None]:
        try:
            return _judged_row(self._guard.check(self._exchange(values)))
        except InputError as error:
            return _error_row(str(error))
        except Exception as error:  # noqa: BLE001  # no row may cost the others, or be lost
            # Only the kind: a message may quote the text.
            return _error_row(f"cannot be judged: {type(error).__name__}")

    def _exchange(self, values: Mapping[str, Any]) -> Exchange:
        columns = self._columns
        if columns.exchange is not None:
            return _parsed(columns.exchange, values[columns.exchange])
        response = values[columns.response]
        if _is_null(response):
            raise InputError(f"`{columns.response}` is null: there is nothing to judge")
        return Exchange.of(
            response,
            prompt=_known(values, columns.prompt),
            system=_known(values, columns.system),
        )


def judged(
    batches: Iterable[Sequence[Line]], *, settings: Settings, workers: int
) -> Generator[list[Result]]:
    """Yield the results of each batch of lines, in their order, from actors with a core each.

    Uses the Ray that is connected to, else that of `RAY_ADDRESS`, else starts one on this machine
    and stops it.

    Args:
        batches: lines; read only few ahead.
        settings: how they are judged.
        workers: actors, at least 1.

    Raises:
        GuardError: class or model cannot be used.
        ScanError: an actor died, or there are not so many cores.
    """
    with _cluster(workers):
        remote = ray.remote(num_cpus=1)(_Actor)
        actors = [remote.remote(settings) for _ in range(workers)]
        waiting: deque[tuple[Sequence[Line], Any]] = deque()
        try:
            for number, batch in enumerate(batches):
                actor = actors[number % workers]
                waiting.append((batch, actor.judge.remote(batch)))
                if len(waiting) >= AHEAD * workers:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            for actor in actors if ray.is_initialized() else ():
                ray.kill(actor)


class _Actor:
    """A guard in a process of Ray's; it loads with the first batch, which can say an error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._judge: LineJudge | None = None
        quiet()

    def judge(self, batch: Sequence[Line]) -> list[Result]:
        self._judge = self._judge or LineJudge(self._settings)
        return self._judge(batch)


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    if ray.is_initialized():
        _check_cores(workers)
        yield
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    quietly = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quietly)
    else:
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=_OBJECTS,
            **quietly,
        )
    try:
        _check_cores(workers)
        yield
    finally:
        ray.shutdown()


def _check_cores(workers: int) -> None:
    """Refuse more actors than can run: those left over would be waited for for ever."""
    cores = int(ray.cluster_resources().get("CPU", 0))
    if cores < workers:
        raise ScanError(f"Ray has {cores} cores for {workers} actors: say `--workers {cores}`")


def _result(batch: Sequence[Line], reference: Any) -> list[Result]:
    try:
        found: list[Result] = ray.get(reference)
    except RayActorError:
        raise died(batch) from None
    except RayTaskError as error:
        # Its own text has a traceback of the actor's.
        raise error.cause from None
    return found


def _judge(given: Mapping[str, Any]) -> Judge:
    return Judge(**given)


def _judged_row(verdict: Verdict) -> dict[str, str | None]:
    risks = {name: round(risk, 6) for name, risk in verdict.risks.items()}
    return {
        "guard_action": verdict.intended,
        "guard_reasons": json.dumps(list(verdict.reasons)),
        "guard_risks": json.dumps(risks),
        "guard_text": verdict.text,
        "guard_error": None,
    }


def _error_row(problem: str) -> dict[str, str | None]:
    nothing = {"guard_reasons": "[]", "guard_risks": "{}", "guard_text": None}
    return {"guard_action": ERROR, **nothing, "guard_error": problem}


def _parsed(column: str, value: Any) -> Exchange:
    if not isinstance(value, str):
        kind = "null" if _is_null(value) else type(value).__name__
        raise InputError(f"`{column}` must be an exchange as JSON text, not {kind}")
    data = parsed(value.encode("utf-8", "surrogatepass"))
    return Exchange.parse({"response": data} if isinstance(data, str) else data)


def _known(values: Mapping[str, Any], column: str | None) -> Any:
    value = "" if column is None else values[column]
    return "" if _is_null(value) else value


def _is_null(value: Any) -> bool:
    """Return whether a value is what some format has for null."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float) and math.isnan(value)


# Formats of batches.


def _column_text(text: str | None) -> str | None:
    """Return a text without lone surrogates, which columns of Arrow and pandas cannot hold."""
    return text and text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _names(batch: Any) -> list[str]:
    names = getattr(batch, "column_names", None)  # pyarrow
    return list(batch if names is None else names)


def _check(there: Sequence[str], wanted: Iterable[str]) -> None:
    problems = [
        f"there is no column `{name}`: there are {', '.join(f'`{each}`' for each in there)}"
        for name in wanted
        if name not in there
    ]
    problems += [
        f"there is a column `{name}` already: drop it" for name in COLUMNS if name in there
    ]
    if problems:
        raise InputError("; ".join(problems))


def _values(batch: Any, name: str) -> list[Any]:
    column = batch[name]
    listed = getattr(column, "to_pylist", None) or column.tolist
    return list(listed())


def _with(batch: Any, added: Mapping[str, list[str | None]]) -> Any:
    if hasattr(batch, "append_column"):
        import pyarrow as pa  # noqa: PLC0415  # it is there where a batch of it is

        for name, values in added.items():
            batch = batch.append_column(name, pa.array(values, pa.string()))
        return batch
    if hasattr(batch, "assign"):
        return batch.assign(**added)
    return {**batch, **{name: np.array(values, object) for name, values in added.items()}}

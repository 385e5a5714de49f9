"""How long the journal waits for PostgreSQL: over a network that drops what is sent, too.

A server limits its statements itself, as long as it runs and is heard. Where it is frozen or the
network is gone, only the one who waits can give up.

This module does not know tables or what is asked.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine

CONNECT_SECONDS: Final = 10
"""How long opening a connection may take."""

NETWORK: Final[Mapping[str, int]] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""When a silent network counts as gone: in seconds, the last one in milliseconds."""


def impatient(engine: Engine, seconds: float) -> None:
    """Have every connection of psycopg's give up a call that is not answered in `seconds`."""
    from psycopg import Connection as Base  # noqa: PLC0415  # an optional dependency
    from psycopg import OperationalError  # noqa: PLC0415
    from sqlalchemy import event  # noqa: PLC0415

    class Impatient(Base[Any]):
        limit = seconds

        def wait(self, gen: Any, *others: Any, **given: Any) -> Any:
            return super().wait(self._limited(gen), *others, **given)

        def _limited(self, gen: Any) -> Any:
            until = time.monotonic() + self.limit
            try:
                state = next(gen)
                while True:
                    ready = yield state
                    if not ready and time.monotonic() > until:
                        # A connection on which an answer may still come is of no use.
                        self.close()
                        raise OperationalError(f"no answer in {self.limit:g} s")
                    state = gen.send(ready)
            except StopIteration as end:
                return end.value

    @event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, arguments: Any, named: Any) -> Any:
        return Impatient.connect(*arguments, **named)


@contextmanager
def patient(connection: Connection) -> Iterator[None]:
    """Wait for ever within the block, where somebody looks who may stop it."""
    own: Any = connection.connection.driver_connection
    if not hasattr(own, "limit"):
        yield
        return
    own.limit = math.inf
    try:
        yield
    finally:
        del own.limit

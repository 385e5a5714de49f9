"""One line of a file of JSON lines, or words that say why it is none and where.

This module does not know what a line should hold.
"""

from __future__ import annotations

import json
from typing import Any

from guard.errors import InputError


def parsed(line: bytes) -> Any:
    """Return what a line holds.

    Args:
        line: JSON in UTF-8, behind a byte-order mark or not.

    Raises:
        InputError: it is no JSON, or more than can be read of it.
    """
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        text = f"not valid UTF-8 at byte {error.start + 1} ({error.reason}): save the file as UTF-8"
        raise InputError(text) from None
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError:  # Python refuses to read numbers of thousands of digits
        raise InputError("not usable: holds a number of too many digits") from None
    except RecursionError:
        raise InputError("not usable: nested too deeply") from None

"""Errors of a scan.

This module does not know when they are raised.
"""

from __future__ import annotations

from guard.errors import GuardError


class ScanError(GuardError):
    """A scan cannot begin or go on; what was judged by then is kept."""

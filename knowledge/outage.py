"""What of a service's failures may pass: limits, moods, broken lines, whoever's client says so."""

import httpx

# Statuses that another attempt may mend, beside those of 500 and more.
PASSING = frozenset((408, 409, 425, 429))


def may_pass(status: int) -> bool:
    """Whether another attempt may do better than one that ended in this HTTP status."""
    return status in PASSING or status >= 500


def is_broken_line(error: BaseException) -> bool:
    """Whether this is a line that broke or an answer that did not come.

    By name too: clients have errors of their own, and bring httpx along under several.
    """
    broken = isinstance(error, ConnectionError | TimeoutError | httpx.TransportError)
    return broken or type(error).__name__.endswith(("ConnectionError", "TimeoutError"))

"""Which variables of the environment hold keys, and how to keep their values out of what is kept.

Runs need keys to reach a model, and nothing else does: no process that runs a kernel or a reference
is given one, and no file of a run holds one.
"""

import json
import os
import re
from collections.abc import Mapping

# Parts of a variable's name, as providers and services name theirs. The last two hold keys among
# other things: OTEL_EXPORTER_OTLP_HEADERS, LANGSMITH_RUNS_ENDPOINTS.
_SECRET_NAME = re.compile(
    r"(^|_)(API_?KEYS?|KEYS?|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|CREDENTIALS?|AUTH|HEADERS"
    r"|RUNS_ENDPOINTS)(_|$)"
)
# Shorter values are words like "true", which may stand in any text.
SHORTEST = 8
REDACTED = "[redacted]"


def is_secret(name: str) -> bool:
    """Whether a variable of that name holds a key."""
    return _SECRET_NAME.search(name.upper()) is not None


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that has no use for keys."""
    return {name: value for name, value in environment.items() if not is_secret(name)}


def redact(text: str) -> str:
    """The text without the value of any key in this process's environment, as JSON or plain."""
    for value in _values():
        for form in {value, json.dumps(value)[1:-1]}:
            text = text.replace(form, REDACTED)
    return text


def _values() -> list[str]:
    """Longest first, so that none is left over as a part of another."""
    found = {value.strip() for name, value in os.environ.items() if is_secret(name)}
    return sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True)

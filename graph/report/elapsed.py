"""When each trial was judged, in seconds of work since the run began, read off its events.

The events are for people who watch; a line that can't be read costs a label, never the report.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any


def judged_at(events: Path) -> dict[int, float]:
    """Seconds worked until each trial had its verdict; empty where nothing can be read.

    `spending` events carry the time worked, restarts and all; between them the clock counts.
    """
    try:
        lines = events.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[int, float] = {}
    worked, since = 0.0, None
    for line in lines:
        event = _event(line)
        at = _moment(event.get("at"))
        if at is None:
            continue
        since = since or at
        if event.get("kind") == "spending" and isinstance(event.get("seconds"), int | float):
            worked, since = float(event["seconds"]), at
        number = event.get("number")
        if event.get("kind") == "trial_judged" and isinstance(number, int):
            found.setdefault(number, worked + (at - since).total_seconds())
    return found


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None

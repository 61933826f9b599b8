"""When each trial was judged, in seconds of work since the run began, read off its events.

The events are for people who watch; a line that can't be read costs a label, never the report.
"""

from datetime import datetime
from pathlib import Path

from graph.events import legible_events


def judged_at(events: Path) -> dict[int, float]:
    """Seconds worked until each trial had its verdict; empty where nothing can be read.

    `spending` events carry the time worked, restarts and all; between them the clock counts.
    """
    found: dict[int, float] = {}
    worked, since = 0.0, None
    for event in legible_events(events):
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


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None

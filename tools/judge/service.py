"""The judge's process: requests from one pipe, replies to another; it owns the zygote.

Standard output and error are the user's own reference's, and go to a log. Whatever goes wrong in
here ends the process: the client notices, starts another one and asks again, so that an error can
never turn into a pass.
"""

import argparse
import importlib
import os
import select
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from knowledge.errors import BadInput
from tools.judge.wire import (
    REQUEST,
    Build,
    Built,
    Caution,
    Cautioned,
    Confirm,
    Examine,
    Examined,
    Judged,
    Measure,
    Open,
    Opened,
    Profiled,
    Profiling,
    Refused,
    Reply,
    Request,
    Survey,
    Surveyed,
    Verify,
)
from tools.judge.zygote import Zygote
from tools.runner.jail import strongest_jail

if TYPE_CHECKING:
    from tools.judge.session import Session

GRACE_SECONDS = 3.0


def main() -> None:
    """Serve until the client closes the pipe."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("requests", type=int)
    parser.add_argument("replies", type=int)
    parser.add_argument("--huge-pages", action="store_true")
    given = parser.parse_args()
    jail_folder = given.folder / "jail"
    _clear(given.folder)
    jail_folder.mkdir(exist_ok=True)
    zygote = Zygote(strongest_jail(), jail_folder, given.huge_pages)
    # torch takes over a second to import: the zygote does so on another core while this process
    # does.
    zygote.start()
    _end_with_client(given.requests)
    service = Service(given.folder, zygote)
    with os.fdopen(given.requests, "rb") as requests, os.fdopen(given.replies, "wb") as replies:
        try:
            for line in requests:
                reply = service.answer(REQUEST.validate_json(line))
                replies.write(reply.model_dump_json().encode() + b"\n")
                replies.flush()
        finally:
            service.close()
    # Nothing is left to save, and taking torch down in good order takes a second.
    os._exit(0)


def _clear(folder: Path) -> None:
    """Remove what an earlier process here was killed over; a runner's folder must be new."""
    for left in (folder / "jail", *folder.glob("build-*"), *folder.glob("reference-*")):
        shutil.rmtree(left, ignore_errors=True)
    for left in (folder / "compiled").glob("*.part"):
        left.unlink(missing_ok=True)


def _end_with_client(requests: int) -> None:
    """Watch for the client's end: killed, it cannot say goodbye, and this process may be busy."""

    def watch() -> None:
        poll = select.poll()
        poll.register(requests, 0)
        poll.poll()
        time.sleep(GRACE_SECONDS)
        # The zygote and all runners end with the channel that this process holds.
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


class Service:
    """Answers one request at a time."""

    def __init__(self, folder: Path, zygote: Zygote) -> None:
        self._folder = folder
        self._zygote = zygote
        self._session: Session | None = None

    def answer(self, request: Request) -> Reply:
        """The reply to a request; a mistake of the user's is a reply too."""
        try:
            if isinstance(request, Open):
                return self._open(request)
            if self._session is None:
                raise RuntimeError("the first message must be an Open")
            return _dispatch(self._session, request)
        except BadInput as error:
            return Refused(where=error.where, what=error.what, mend=error.mend)

    def _open(self, request: Open) -> Opened:
        # Imported here by name, and not at the top, so that the zygote starts before torch is
        # loaded.
        session_module = importlib.import_module("tools.judge.session")
        self._session = session_module.open_session(
            request.task, self._folder, request.limits, self._zygote
        )
        return Opened()

    def close(self) -> None:
        """End everything that was started."""
        if self._session is not None:
            self._session.close()
        self._zygote.close()


def _dispatch(session: "Session", request: Request) -> Reply:
    match request:
        case Open():
            raise RuntimeError("a session is opened once")
        case Examine():
            return Examined(facts=session.facts)
        case Caution():
            return Cautioned(cautions=session.cautions)
        case Survey():
            baselines, roofline = session.survey()
            return Surveyed(baselines=baselines, roofline=roofline)
        case Build():
            return Built(failure=session.build(request.candidate))
        case Verify():
            return Judged(verdict=session.verify(request.candidate))
        case Measure():
            return Judged(
                verdict=session.measure(request.candidate, request.against, request.to_beat)
            )
        case Profiling():
            return Profiled(profile=session.profile(request.candidate))
        case Confirm():
            return Judged(verdict=session.confirm(request.candidate))


if __name__ == "__main__":
    main()

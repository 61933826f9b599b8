"""The journal of a run: every exchange with a model is on the disk before its answer is used.

What was spent is counted from that file, so it is counted over restarts. An answer that a killed
process had paid for is handed back, in order, once.
"""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from agents.llm.exchange import Exchange, Role, Spent, Usage
from graph.folder import RunFolder
from graph.ledger import Ledger
from graph.messages import Readable
from knowledge.errors import BadInput
from tools.secrets import redact
from tools.task import Budget

# The price in USD of a call to a model with so many tokens in and out; None where it is unknown.
PriceOf = Callable[[str, int, int], float | None]
# What was paid for once and is used again costs nothing.
FREE = Usage(input_tokens=0, output_tokens=0, usd=0.0)


class Place(NamedTuple):
    """For what a role is at work; `trial` is 0 in planning."""

    role: Role
    plan: str
    trial: int


class Amount(NamedTuple):
    """Tokens, and money as far as it is known."""

    tokens: int
    usd: float


_place: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def at_work(role: Role, plan: str = "", trial: int = 0) -> Iterator[None]:
    """Within this block, what passes between a role and its model belongs to that trial."""
    token = _place.set(Place(role, plan, trial))
    try:
        yield
    finally:
        _place.reset(token)


def present_place() -> Place | None:
    """Who is at work in this thread, and for what."""
    return _place.get()


def unpriced(model: str, input_tokens: int, output_tokens: int) -> float | None:
    """No price is known."""
    return None


class Answers:
    """Answers by content that runs share, where the task says `cache: true`.

    Args:
        folder: a file for each question that was ever asked. Other processes read and write there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str, nth: int) -> Exchange | None:
        """The answer that this question got when it was asked for the nth time, from 0.

        Raises:
            BadInput: the folder can't be read.
        """
        with self._at_hand():
            answers = legible_exchanges(self._path(key))
        return answers[nth] if nth < len(answers) else None

    def keep(self, exchange: Exchange, nth: int) -> None:
        """Keep an answer that is new.

        Raises:
            BadInput: the folder can't be written to.
        """
        path = self._path(exchange.key)
        with self._at_hand():
            if len(legible_exchanges(path)) <= nth:
                # What a killed process left of a line ends where this one starts.
                Ledger(path).append(f"\n{exchange.model_dump_json()}")

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.jsonl"

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(
                str(self._folder),
                f"cannot be used ({error.strerror}).",
                "Let yourself read and write there: answers are shared in it.",
            ) from error


def legible_exchanges(path: Path) -> list[Exchange]:
    """The exchanges in a run's file, also while it is written to; what can't be read is left out.

    Raises:
        OSError: the file is there and can't be opened.
    """
    found: list[Exchange] = []
    for line in Ledger(path).whole_lines():
        with suppress(ValidationError):
            found.append(Exchange.model_validate_json(line))
    return found


class RunJournal:
    """The journal of one run; thread-safe.

    Args:
        folder: of the run.
        budget: what may be spent on models.
        price_of: what a call costs.
        answers: what other runs were answered; None where the task doesn't want that.
    """

    def __init__(
        self,
        folder: RunFolder,
        budget: Budget,
        price_of: PriceOf = unpriced,
        answers: Answers | None = None,
    ) -> None:
        self._folder = folder
        self._budget = budget
        self._price_of = price_of
        self._answers = answers
        self._ledger = Ledger(folder.exchanges, durable=True)
        self._readable = Readable()
        self._lock = threading.Lock()
        self._unused: dict[str, deque[Exchange]] = defaultdict(deque)
        self._kept: list[Exchange] = []
        self._asked: dict[str, int] = defaultdict(int)
        # A call that is under way, by its thread: it may still cost what it was admitted for.
        self._open: dict[int, Amount] = {}
        # What calls that got no answer may have cost all the same.
        self._lost: list[Amount] = []
        self._complaints: list[str] = []
        self._unpriced: set[str] = set()
        self._load()

    def _load(self) -> None:
        lines, cut = self._ledger.recover()
        if cut:
            self._complaints.append(
                f"the last line of {self._folder.exchanges.name} was half written and is dropped"
            )
        for number, line in enumerate(lines, 1):
            try:
                exchange = Exchange.model_validate_json(line)
            except ValidationError:
                self._complaints.append(
                    f"line {number} of {self._folder.exchanges.name} is no exchange; it is skipped"
                )
                continue
            self._unused[exchange.key].append(exchange)
            self._count(exchange)

    def find(self, key: str) -> Exchange | None:
        """The answer to this very question, if it was given before and not yet used again."""
        with self._lock:
            if self._unused[key]:
                found = self._unused[key].popleft()
                self._show(found)
                return found
        given = self._from_elsewhere(key)
        return None if given is None else self._adopt(given)

    def admit(self, model: str, input_tokens: int, output_tokens: int) -> None:
        """Let a call through that may take this many tokens at most.

        Until its answer is kept, it is released, or this thread asks for another, it counts as
        taken.

        Raises:
            Spent: it could break the budget of tokens or of money.
        """
        tokens, usd = (
            input_tokens + output_tokens,
            self._price_of(model, input_tokens, output_tokens),
        )
        with self._lock:
            self._open.pop(threading.get_ident(), None)
            if usd is None and model not in self._unpriced:
                self._unpriced.add(model)
                self._complaints.append(
                    f"the price of {model} is unknown: it counts as none, and budget.usd does not "
                    "bound it"
                )
            spent, cap = self._spent(), self._budget
            if spent.tokens + tokens > cap.tokens:
                raise Spent(
                    f"the budget of {cap.tokens:,} tokens is spent: {spent.tokens:,} are taken, "
                    f"and the next call may take {tokens:,}"
                )
            if usd is not None and spent.usd + usd > cap.usd:
                raise Spent(
                    f"the budget of ${cap.usd:.2f} for models is spent: ${spent.usd:.4f} is taken, "
                    f"and the next call may cost ${usd:.4f}"
                )
            self._open[threading.get_ident()] = Amount(tokens, usd or 0.0)

    def release(self, *, billed: bool) -> None:
        """This thread's call got no answer; `billed`, it counts as taken until the process ends."""
        with self._lock:
            amount = self._open.pop(threading.get_ident(), None)
            if billed and amount is not None:
                self._lost.append(amount)

    def keep(self, exchange: Exchange) -> None:
        """Write an exchange down; it is on the disk when this returns."""
        with self._lock:
            nth = self._asked[exchange.key]
            self._write(exchange)
            self._open.pop(threading.get_ident(), None)
        if self._answers is not None:
            self._answers.keep(_redacted(exchange), nth)

    def exchanges(self) -> tuple[Exchange, ...]:
        """Every exchange of the run so far, in the order in which they were answered."""
        with self._lock:
            return tuple(self._kept)

    def complaints(self) -> tuple[str, ...]:
        """Sentences a person should read, each once."""
        with self._lock:
            told, self._complaints = tuple(self._complaints), []
        return told

    def _from_elsewhere(self, key: str) -> Exchange | None:
        """An answer that another run was given."""
        if self._answers is None:
            return None
        with self._lock:
            nth = self._asked[key]
        return self._answers.find(key, nth)

    def _adopt(self, given: Exchange) -> Exchange:
        """Another run's answer as one of this run's own, which costs nothing."""
        place = present_place()
        mine = given.model_copy(
            update={"usage": FREE, "seconds": 0.0}
            | ({"role": place.role, "plan": place.plan} if place else {})
        )
        with self._lock:
            self._write(mine)
        return mine

    def _write(self, exchange: Exchange) -> None:
        self._ledger.append(redact(exchange.model_dump_json()))
        self._count(exchange)
        self._show(exchange)

    def _count(self, exchange: Exchange) -> None:
        self._kept.append(exchange)
        self._asked[exchange.key] += 1
        if exchange.usage.usd is None:
            self._unpriced.add(exchange.model)

    def _spent(self) -> Amount:
        tokens = sum(one.usage.input_tokens + one.usage.output_tokens for one in self._kept)
        usd = sum(one.usage.usd or 0.0 for one in self._kept)
        unanswered = (*self._open.values(), *self._lost)
        return Amount(
            tokens + sum(one.tokens for one in unanswered), usd + sum(one.usd for one in unanswered)
        )

    def _show(self, exchange: Exchange) -> None:
        """Put the exchange where a person looks for it: with its trial, or with the planning."""
        place = present_place()
        trial = place.trial if place is not None else 0
        where = self._folder.trials / str(trial) if trial else self._folder.planning
        self._readable.keep(where / "messages.jsonl", _redacted(exchange))


def _redacted(exchange: Exchange) -> Exchange:
    return Exchange.model_validate_json(redact(exchange.model_dump_json()))

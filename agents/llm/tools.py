"""What models may do for themselves: look things up, and try a draft before they hand it over.

A draft is the newest module that the model wrote in the conversation, so that code need not travel
inside a call. What a compiler or a kernel printed comes back bounded and quoted, as the judge tells
it to anybody who writes kernels; secret inputs and seeds stay secret.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Literal, Protocol

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import Field, ValidationError

from agents.brief import Brief
from agents.llm.replies import newest_draft, unread_code
from agents.llm.views import device_lines, words_of
from knowledge.store import Library
from tools.candidate import Candidate, backend_of
from tools.judge.client import JudgeDied
from tools.judge.source import parse_candidate
from tools.task import language_of
from tools.told import printable, told_to_agents
from tools.verdict import BuildFailed, Correct, JudgeError, Profile, Trial, Verdict

PAGES, PAGE_WORDS = 4, 200
LINES = 120
ANSWER_LIMIT = 8000
NO_CALLS_LEFT = "No calls are left in this turn: give your answer now."
NO_DRAFT = "There is no draft yet: write the module, or edits, beside the call."

Source = Annotated[
    str, Field(description="leave it empty: the newest module you wrote in a fenced block")
]
Metric = Literal[
    "median_ms", "achieved_gbps", "achieved_gflops", "roofline_fraction", "bound", "page_faults",
    "page_fault_ms", "notes",
]  # fmt: skip


class Bench(Protocol):
    """What a draft is tried on: the run's judge, or what stands in its place."""

    def build(self, candidate: Candidate) -> BuildFailed | None:
        """Compile it; None where nothing is wrong.

        Raises:
            JudgeDied: its own machinery failed.
        """

    def verify(self, candidate: Candidate) -> Verdict:
        """Judge whether it is right."""

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Verdict:
        """Time it."""

    def profile(self, candidate: Candidate) -> Profile | None:
        """Where its time goes, once it was timed.

        Raises:
            JudgeDied: its own machinery failed.
        """


class Toolbox:
    """The tools of one turn.

    Args:
        brief: what is known of the run.
        library: is searched.
        bench: tries drafts; None for roles that write none.
        base: the module that edits are made to.
        most: calls that are answered.
    """

    def __init__(
        self, brief: Brief, library: Library, bench: Bench | None, base: str | None, most: int
    ) -> None:
        self._brief = brief
        self._library = library
        self._bench = bench
        self._base = base
        self._most = most
        self._draft: str | None = None
        self._unread = ""
        looks: list[Callable[..., str]] = [self.search_library, self.device]
        looks += [self.read_trial] if brief.trials else []
        tries: list[Callable[..., str]] = [self.compile, self.verify]
        if brief.baselines.best is not None:
            tries += [self.time, self.profile]
        self.tools: tuple[BaseTool, ...] = tuple(
            StructuredTool.from_function(one, parse_docstring=False)
            for one in [*looks, *(tries if bench is not None else [])]
        )

    def answer(self, messages: Sequence[BaseMessage]) -> list[ToolMessage]:
        """What the calls of the last message give, an answer each."""
        last = messages[-1]
        assert isinstance(last, AIMessage), "only a model calls tools"
        self._draft = newest_draft(messages, self._base)
        self._unread = unread_code(last, newest_draft(messages[:-1], self._base) or self._base)
        used = sum(isinstance(message, ToolMessage) for message in messages)
        found: list[ToolMessage] = []
        for number, call in enumerate(last.tool_calls, used + 1):
            said = NO_CALLS_LEFT
            if number <= self._most:
                told = self._run(call["name"], call["args"])[:ANSWER_LIMIT]
                said = f"{told}\n(call {number} of {self._most})"
            found.append(ToolMessage(content=said, tool_call_id=call["id"] or ""))
        for broken in last.invalid_tool_calls:
            said = "The arguments are not JSON."
            found.append(ToolMessage(content=said, tool_call_id=broken["id"] or ""))
        return found

    def _run(self, name: str, arguments: dict[str, object]) -> str:
        tool = next((one for one in self.tools if one.name == name), None)
        if tool is None:
            return f"There is no tool {name[:40]!r}. There are: {', '.join(self._names())}."
        try:
            return str(tool.invoke(arguments))
        except ValidationError as error:
            told = "; ".join(
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3]
            )
            return f"The arguments do not fit: {told}."

    def _names(self) -> list[str]:
        return [tool.name for tool in self.tools]

    def search_library(self, query: str) -> str:
        """Search pages on hardware, languages, patterns, mends: by symptom, operator, error."""
        device, task = self._brief.device, self._brief.task
        language = language_of(task, device, "task")
        found = self._library.search(query[:400], PAGES, device=device.name, language=language)
        if not found:
            return "Nothing was found."
        return "\n\n".join(f"## {one.title}\n{words_of(one.text, PAGE_WORDS)}" for one in found)

    def device(self) -> str:
        """Every figure that is known of the device: cores, caches, vectors, bandwidth, peaks."""
        return "\n".join(device_lines(self._brief, everything=True))

    def read_trial(self, number: int, first_line: int = 1) -> str:
        """The verdict on an earlier trial, and its source from a line on, with line numbers."""
        trial = self._trial(number)
        if trial is None:
            known = ", ".join(str(one.number) for one in self._brief.trials)
            return f"There is no trial {number}. There are: {known}."
        lines = printable(trial.candidate.source).splitlines()
        start = max(first_line, 1)
        shown = [
            f"{at:4} {line}" for at, line in enumerate(lines[start - 1 : start - 1 + LINES], start)
        ]
        told = told_to_agents(trial.verdict)
        more = f"\n({len(lines)} lines in all)" if len(lines) > LINES else ""
        return f"{trial.title}\n{told}\n" + "\n".join(shown) + more

    def compile(self, source: Source = "") -> str:
        """Compile the draft; says what the compiler says."""
        return self._with_draft(source, lambda one: self._built(one) or "It compiles.")

    def verify(self, source: Source = "") -> str:
        """Have the judge say whether the draft is right."""
        return self._with_draft(source, lambda one: told_to_agents(self._verdict(one)))

    def time(self, source: Source = "") -> str:
        """Time the draft against the fastest baseline, after it was found right."""
        return self._with_draft(source, lambda one: _timed_words(self._timed(one)))

    def profile(self, metrics: Sequence[Metric], source: Source = "") -> str:
        """Time the draft as `time` does, and read these metrics."""
        return self._with_draft(source, lambda one: self._profiled(one, metrics))

    def _with_draft(self, source: str, work: Callable[[Candidate], str]) -> str:
        if not source.strip() and self._unread:
            return f"The code beside the call can't be read, so nothing was tried: {self._unread}."
        text = source if source.strip() else self._draft
        if text is None:
            return NO_DRAFT
        return work(Candidate(source=text, backend=backend_of(text)))

    def _built(self, draft: Candidate) -> str:
        assert self._bench is not None, "who has no bench has no such tool"
        failed: Verdict | None
        try:
            failed = parse_candidate(draft.source) or self._bench.build(draft)
        except JudgeDied as death:
            failed = JudgeError(log=str(death))
        return told_to_agents(failed) if failed is not None else ""

    def _verdict(self, draft: Candidate) -> Verdict:
        assert self._bench is not None, "who has no bench has no such tool"
        return parse_candidate(draft.source) or self._bench.verify(draft)

    def _timed(self, draft: Candidate) -> Verdict:
        verdict, best = self._verdict(draft), self._brief.baselines.best
        if not isinstance(verdict, Correct) or best is None or self._bench is None:
            return verdict
        return self._bench.measure(draft, (best.name,))

    def _profiled(self, draft: Candidate, metrics: Sequence[Metric]) -> str:
        verdict = self._timed(draft)
        profile: Profile | None = None
        with suppress(JudgeDied):
            profile = self._bench.profile(draft) if self._bench is not None else None
        if not isinstance(verdict, Correct) or profile is None:
            return _timed_words(verdict)
        read = [f"{name}: {_shown(getattr(profile, name))}" for name in metrics]
        return "\n".join([told_to_agents(verdict), *read])

    def _trial(self, number: int) -> Trial | None:
        return next((one for one in self._brief.trials if one.number == number), None)


def _timed_words(verdict: Verdict) -> str:
    told = told_to_agents(verdict)
    return told if isinstance(verdict, Correct) else f"There is no timing.\n{told}"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "; ".join(value) or "none" if isinstance(value, tuple) else str(value)

"""Scripts: minds of several kinds that plan, write, mend and read, each as its prompt asks.

What is wanted is told by the question itself: by the form that the answer should have, by the tools
on offer, by the op that it shows, by what it says was tried.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.models.script import Answer, Question, Says, Script

KERNELS = Path(__file__).parent / "kernels"
# In so many characters a prompt has said whom it speaks to.
OPENING = 200
Role = Literal["planner", "coder", "debugger", "profiler"]


@dataclass(frozen=True)
class Knowledge:
    """How to make one op fast: `sign` is a piece of its reference by which it is known again."""

    op: str
    sign: str
    title: str
    instructions: str
    speedup: float

    @property
    def source(self) -> str:
        """The kernel."""
        return (KERNELS / f"{self.op}.py").read_text(encoding="utf-8")


KNOWN = (
    Knowledge(
        op="linear_sum",
        sign="self.linear(x).sum(",
        title="Sum the weight's rows first, then one dot product a row",
        instructions="sum over h of (x . w_h + b_h) is x . (sum of w_h) + sum of b_h: one sweep of "
        "the weight for its column sums, then a dot product for each row of x.",
        speedup=10.0,
    ),
    Knowledge(
        op="scale_gelu_sum",
        sign="F.gelu(x * self.scale)",
        title="Scale, GELU and sum in one sweep of each row",
        instructions="One loop over each row: scale, erfc by a polynomial and one exponential, add "
        "to a vector accumulator. Nothing but x is read, one value a row is written.",
        speedup=4.0,
    ),
)


def role_of(question: Question) -> Role:
    """Who is asked: by the form of the answer, and where it has none, by what it works on."""
    told = question.messages[0].text
    if form_with(question, "plans") or '"plans"' in told:
        return "planner"
    if form_with(question, "bottleneck") or '"bottleneck"' in told:
        return "profiler"
    return "debugger" if "mend" in told[:OPENING].lower() else "coder"


def known_op(question: Question) -> Knowledge:
    """What is known of the op that the question shows.

    Raises:
        LookupError: it is none of the known ones.
    """
    for one in KNOWN:
        if one.sign in question.text:
            return one
    raise LookupError("the question shows no op that this mind knows")


def form_with(question: Question, field: str) -> bool:
    """Whether the answer is to have a form with this field."""
    shapes = [tool.parameters for tool in question.tools]
    shapes += [question.shape] if question.shape else []
    return any(field in shape.get("properties", {}) for shape in shapes)


def fill(question: Question, form: Mapping[str, Any]) -> Says:
    """A form, given as the question wants it: by a tool that takes it, else as JSON."""
    for tool in question.tools:
        if set(form) & set(tool.parameters.get("properties", {})):
            return Says(calls=((tool.name, form),))
    return Says(json.dumps(form))


def fenced(source: str, before: str = "", after: str = "") -> str:
    """A module in a fenced block, with words around it."""
    return f"{before}\n```python\n{source}```\n{after}".strip()


def edit(old: str, new: str) -> str:
    """One search/replace block."""
    return f"<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE"


def plan_form(knowledge: Knowledge, title: str = "", **changes: Any) -> dict[str, Any]:
    """A plan as planners give it."""
    return {
        "title": title or knowledge.title,
        "technique": "fused loop",
        "instructions": knowledge.instructions,
        "expected_speedup": knowledge.speedup,
        "arithmetic": "Each input is read once; the roofline allows that much.",
        "parent": None,
        "pages": [],
        **changes,
    }


class Able:
    """Knows the ops: looks a thing up, plans once, tries its draft, and writes it right.

    A subclass changes what it does in a role.
    """

    def answer(self, question: Question) -> Answer:
        """What its role asks for."""
        match role_of(question):
            case "planner":
                return self.plan(question)
            case "coder":
                return self.write(question)
            case "debugger":
                return self.mend(question)
            case "profiler":
                return self.read(question)

    def plan(self, question: Question) -> Answer:
        """One plan after a look into the library; none when that was tried."""
        if question.tool("search_library") and not was_told(question):
            return Says(calls=(("search_library", {"query": "fuse a chain into one loop"}),))
        return fill(question, {"plans": self.plans(question), "refused": []})

    def plans(self, question: Question) -> Sequence[Mapping[str, Any]]:
        """What it would try, without what the question says was tried."""
        knowledge = known_op(question)
        return [] if was_tried(question, knowledge.title) else [plan_form(knowledge)]

    def write(self, question: Question) -> Answer:
        """The kernel; where that is possible, the judge has looked at it before."""
        source = known_op(question).source
        if question.tool("verify") and not was_told(question):
            return Says(fenced(source, "Before I hand it over:"), calls=(("verify", {}),))
        return Says(fenced(source, "This is the kernel.", "Label: made for float32"))

    def mend(self, question: Question) -> Answer:
        """The kernel as it should be."""
        source = known_op(question).source
        return Says(fenced(source, "Change: written anew, as one fused loop."))

    def read(self, question: Question) -> Answer:
        """What bounds it."""
        reading = {
            "bottleneck": "memory",
            "evidence": ["It reads each input once, near the bandwidth that was measured."],
            "moves": ["Prefetch the next row."],
        }
        return fill(question, reading)


def was_tried(question: Question, title: str) -> bool:
    """Whether a trial of this run has that title; what earlier runs gave is another matter."""
    return re.search(rf"\btrial \d+\b[^\n]*{re.escape(title)}", question.text) is not None


def was_told(question: Question) -> bool:
    """Whether a tool answered already."""
    return question.messages[-1].role == "tool"


class Always:
    """Says the same to everything."""

    def __init__(self, said: Answer) -> None:
        self.said = said

    def answer(self, question: Question) -> Answer:
        """The same."""
        return self.said


class ErrsAndRepairs(Able):
    """Writes what does not compile, mends it into what is wrong, and that into what is right.

    Both repairs are edits of the module that it is shown.
    """

    LOOP = "for (int64_t r = 0; r < rows; ++r) {"
    NOT_COMPILING = "for (int64_t r = 0; r < rows; ++r) { undeclared = r;"
    SKIPPING = "for (int64_t r = 1; r < rows; ++r) {"

    def write(self, question: Question) -> Answer:
        """A loop with a name that is declared nowhere."""
        source = known_op(question).source
        return Says(fenced(source.replace(self.LOOP, self.NOT_COMPILING)))

    def mend(self, question: Question) -> Answer:
        """An edit of the line that is wrong in the module that was rejected."""
        if self.NOT_COMPILING in question.text:
            said = "Change: the name that was not declared is gone.\n"
            return Says(said + edit(self.NOT_COMPILING, self.SKIPPING))
        said = "Change: the first row is computed too; the loop began behind it.\n"
        return Says(said + edit(self.SKIPPING, self.LOOP))


class Babbles:
    """Talks around every question; there is neither code nor a form in what it says."""

    def answer(self, question: Question) -> Answer:
        """Words."""
        return Says(
            "What a fine op! Performance is all about the memory hierarchy, and I would be "
            "delighted to explore the many avenues that vectorization opens up. Shall we begin?"
        )


class BabblesAtWork(Able):
    """Plans well, and has only words when it should write or mend."""

    def write(self, question: Question) -> Answer:
        """Words."""
        return Babbles().answer(question)

    def mend(self, question: Question) -> Answer:
        """Words."""
        return Babbles().answer(question)


class Malforms(Able):
    """Gives every answer in a form that can't be read; asked once more, it plans as it should.

    Its code is cut off in the middle, its readings name a bottleneck that does not exist.
    """

    def plan(self, question: Question) -> Answer:
        """First without the title and with words for a number, then right."""
        if question.messages[-1].role == "user" and not was_asked_again(question):
            broken = {"plans": [{"instructions": "Do.", "expected_speedup": "much"}]}
            return fill(question, broken)
        return fill(question, {"plans": self.plans(question), "refused": []})

    def write(self, question: Question) -> Answer:
        """The first half of the kernel, in a block that does not end."""
        source = known_op(question).source
        return Says(f"```python\n{source[: len(source) // 2]}", cut=True)

    def mend(self, question: Question) -> Answer:
        """An edit of a line that the module does not have."""
        return Says("Change: mended.\n" + edit("not a line of the module", "pass"))

    def read(self, question: Question) -> Answer:
        """A bottleneck of its own invention, and evidence that is no list."""
        return fill(question, {"bottleneck": "vibes", "evidence": 3, "moves": None})


def was_asked_again(question: Question) -> bool:
    """Whether the model has answered before in this conversation."""
    return any(message.role == "assistant" for message in question.messages)


class Cheats(Able):
    """Plans a kernel that returns what it computed for an earlier input, and then an honest one."""

    CHEAT = "Keep the result, since inputs hardly change"
    CACHED = (
        "    kept: torch.Tensor | None = None\n\n"
        "    def forward(self, x: torch.Tensor) -> torch.Tensor:\n"
        "        if self.kept is None or self.kept.shape[0] != x.shape[0]:\n"
        "            self.kept = self.computed(x)\n"
        "        return self.kept.clone()\n\n"
        "    def computed(self, x: torch.Tensor) -> torch.Tensor:\n"
    )

    def plans(self, question: Question) -> Sequence[Mapping[str, Any]]:
        """The cheat first; when that was tried, the honest way."""
        if not was_tried(question, self.CHEAT):
            return [plan_form(known_op(question), self.CHEAT, expected_speedup=100.0)]
        return super().plans(question)

    def write(self, question: Question) -> Answer:
        """The cheat where that is the plan, which is what the question names last."""
        knowledge = known_op(question)
        if question.text.rfind(knowledge.title) > question.text.rfind(self.CHEAT):
            return super().write(question)
        forward = "    def forward(self, x: torch.Tensor) -> torch.Tensor:\n"
        return Says(fenced(knowledge.source.replace(forward, self.CACHED), "Nothing is faster."))

    def mend(self, question: Question) -> Answer:
        """It does not admit anything."""
        return Says("No way: the kernel is as fast as a kernel can be.")


class Spies(Able):
    """Writes a kernel that tells what it finds in its environment, and of its parents' too."""

    SPYING = """\
import os
from pathlib import Path

import torch


def environments():
    yield dict(os.environ)
    for one in Path("/proc").glob("[0-9]*/environ"):
        try:
            yield one.read_bytes()
        except OSError:
            continue


class ModelNew(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()

    def forward(self, x):
        raise RuntimeError(f"found: {list(environments())}")
"""

    def write(self, question: Question) -> Answer:
        """The spy."""
        return Says(fenced(self.SPYING))


class Slow:
    """Takes longer than the client waits when it is first asked; the next time it is quick.

    Args:
        script: answers.
        delay_s: how long it takes.
        times: how many questions it is slow with.
    """

    def __init__(self, script: Script, delay_s: float, times: int) -> None:
        self._script, self._delay_s, self._times = script, delay_s, times
        self._asked: Counter[str] = Counter()

    def answer(self, question: Question) -> Answer:
        """The script's answer, late or not."""
        answer = self._script.answer(question)
        self._asked[question.text] += 1
        late = self._asked[question.text] == 1 and len(self._asked) <= self._times
        if late and isinstance(answer, Says):
            return Says(answer.text, answer.calls, self._delay_s, answer.cut)
        return answer


class Stumbles:
    """Refuses as often as it has refusals left for a question, and then answers.

    Args:
        script: answers.
        refusals: for each of the first questions, what comes before its answer.
    """

    def __init__(self, script: Script, *refusals: Sequence[Answer]) -> None:
        self._script = script
        self._left = deque(deque(each) for each in refusals)
        self._present: deque[Answer] = deque()

    def answer(self, question: Question) -> Answer:
        """The next refusal, else the script's answer."""
        if not self._present and self._left:
            self._present = self._left.popleft()
            self._present.append(self._script.answer(question))
        if self._present:
            return self._present.popleft()
        return self._script.answer(question)


class Leaves(Able):
    """Plans, and is not reached any more when it should write."""

    def __init__(self, parting: Answer) -> None:
        self._parting = parting

    def write(self, question: Question) -> Answer:
        """No answer."""
        return self._parting

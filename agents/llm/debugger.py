"""A debugger with a model behind it."""

import re

from langchain_core.messages import BaseMessage

from agents.brief import Brief, Plan
from agents.llm import prompts, views
from agents.llm.coder import candidate_of, module_in
from agents.llm.replies import Malformed, text_of
from agents.llm.talk import Refused, Talk
from agents.llm.tools import Bench, Toolbox
from agents.llm.turn import Turn
from knowledge.store import Library
from tools.candidate import Candidate
from tools.told import told_to_agents
from tools.verdict import Correct, JudgeError, Trial

CHANGE_LIMIT = 200
QUERY_LIMIT = 300
_CHANGE = re.compile(r"^\W*Change:\W*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_NO_WAY = re.compile(r"^\W*No way:", re.MULTILINE | re.IGNORECASE)

Answer = tuple[str, str] | None


class ModelDebugger:
    """Mends any module, whoever wrote it; the mended plan is the model's from then on."""

    def __init__(self, talk: Talk, library: Library, bench: Bench) -> None:
        self._talk = talk
        self._library = library
        self._bench = bench

    def repair(self, brief: Brief, plan: Plan, trial: Trial) -> tuple[Plan, Candidate, str] | None:
        """A changed plan, its candidate, and what was changed.

        None where the model sees no way, or can't be understood.

        Raises:
            Spent: the budget does not allow the call.
            Unreachable: there is no answer after every retry.
        """
        if isinstance(trial.verdict, Correct | JudgeError):
            return None
        base = trial.candidate.source
        told = told_to_agents(trial.verdict)
        pages = views.pages_for(brief, self._library, told[:QUERY_LIMIT])
        toolbox = Toolbox(brief, self._library, self._bench, base, self._talk.model.tool_calls)

        def read(dialogue: list[BaseMessage]) -> Answer:
            if _NO_WAY.search(text_of(dialogue[-1])):
                return None
            return module_in(dialogue, base)

        try:
            answer = Turn(self._talk, toolbox, plan.id).take(
                prompts.for_debugger(brief, plan, trial, pages), read
            )
        except (Malformed, Refused):
            return None
        if answer is None or answer[0] == base:
            return None
        source, said = answer
        found = _CHANGE.search(said)
        change = found.group(1)[:CHANGE_LIMIT] if found else "rewritten after the verdict"
        maker = self._talk.model.id
        mended = plan.model_copy(
            # The steps say no more what the module does.
            update={"steps": (), "maker": maker, "technique": plan.pattern}
        )
        return mended, candidate_of(source, said, plan.labels, maker), change

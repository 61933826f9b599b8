"""A profiler with a model behind it: the figures are the judge's, the reading is the model's."""

from langchain_core.messages import AIMessage, BaseMessage

from agents.brief import Brief, Diagnosis
from agents.llm import prompts
from agents.llm.replies import Malformed, Reading, read_form
from agents.llm.talk import Refused, Talk
from agents.llm.tools import Toolbox
from agents.llm.turn import Turn
from agents.playbook.profiler import PlaybookProfiler
from knowledge.store import Library
from tools.verdict import Trial

SENTENCES, SENTENCE_LIMIT, MOVES = 5, 300, 3


class ModelProfiler:
    """Reads measurements; where the model says nothing readable, the rules' reading stands."""

    def __init__(self, talk: Talk, library: Library) -> None:
        self._talk = talk
        self._library = library
        self._rules = PlaybookProfiler()

    def explain(self, brief: Brief, trial: Trial) -> Diagnosis:
        """Which bound the trial is at, with the rules' figures first in its evidence.

        Raises:
            ValueError: the trial was not timed, so there is nothing to explain.
            Spent: the budget does not allow the call.
            Unreachable: there is no answer after every retry.
        """
        rules = self._rules.explain(brief, trial)
        toolbox = Toolbox(
            brief, self._library, None, trial.candidate.source, self._talk.model.tool_calls
        )
        try:
            reading = Turn(self._talk, toolbox, trial.plan).take(
                prompts.for_profiler(brief, trial, rules), _read, Reading
            )
        except (Malformed, Refused):
            return rules
        # Figures and what a model makes of them are kept apart for whoever reads on.
        evidence = [
            f"as {self._talk.model.id} reads it: {_sentence(one)}"
            for one in reading.evidence[:SENTENCES]
        ]
        return rules.model_copy(
            update={
                "bottleneck": reading.bottleneck,
                "evidence": (*rules.evidence, *evidence),
                "moves": tuple(_sentence(one) for one in reading.moves[:MOVES]),
            }
        )


def _read(dialogue: list[BaseMessage]) -> Reading:
    last = dialogue[-1]
    assert isinstance(last, AIMessage), "a conversation ends with the model's answer"
    return read_form(last, Reading)


def _sentence(text: str) -> str:
    return " ".join(text.split())[:SENTENCE_LIMIT]

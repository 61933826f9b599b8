"""Trajectories as examples for training: which are fit for what, each once, without secrets."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from eval.trajectories import LeftOut, Message, Trajectory, in_a_block
from tools.secrets import redact

Form = Literal["sft", "preference", "rl"]
SCHEMA = 1
# Of one confirmed kernel, so that an op with many failures does not outweigh the others.
MOST_PAIRS = 8
NO_REWARD = "no settled verdict: right but measured once, only compiled, or the judge failed"
NOT_FASTER = "not confirmed as faster than every baseline"
TWICE = "the same kernel for the same prompt"
NO_PAIR = "no other kernel of the same op on the same device with a clearly lower reward"
_FIGURE = re.compile(r"\d+(?:\.\d+)?")
# What stands in the place of a folder's path, which says whose machine it was.
HOME = "~"


class Census:
    """What was read, what became an example, and what did not and why: the figures of the card."""

    def __init__(self) -> None:
        self.runs = 0
        self.left_out: list[LeftOut] = []
        self.trials = 0
        self.examples = 0
        self.dropped: Counter[str] = Counter()
        self.of: dict[str, Counter[str]] = defaultdict(Counter)
        self.rewards: list[float] = []

    def count(self, one: Trajectory) -> None:
        """An example was made of it."""
        self.examples += 1
        told = {
            "verdict": one.verdict,
            "author": one.author,
            "role": one.role,
            "prompt": one.prompt_is,
            "licence of the reference": one.licence,
            "device": one.device,
            "judge": one.judge[:12] or "unknown",
            "versions": ", ".join(f"{name} {text}" for name, text in one.versions.items()),
        }
        for what, value in told.items():
            self.of[what][value] += 1
        if one.reward is not None:
            self.rewards.append(one.reward)


def examples(
    found: Iterable[Trajectory | LeftOut], form: Form, census: Census
) -> Iterator[dict[str, Any]]:
    """Examples in a form, as they are found; pairs once all is known.

    Args:
        found: trajectories, and runs that have none.
        form: `sft`, `preference` or `rl`.
        census: is told of everything.
    """
    kept = _once(_trials(found, census), census)
    if form == "preference":
        yield from _pairs(kept, census)
        return
    for one in kept:
        if form == "sft" and not one.faster:
            census.dropped[NOT_FASTER] += 1
            continue
        census.count(one)
        example: dict[str, Any] = {"prompt": one.prompt, "completion": one.completion}
        if form == "rl":
            example["reward"] = one.reward
        yield example | {"meta": _meta(one)}


def line_of(example: dict[str, Any]) -> str:
    """An example as a line of JSON, without keys' values and without the user's home."""
    return clean(json.dumps(example, ensure_ascii=False))


def clean(text: str) -> str:
    """The text without the values of secret variables, and without the user's name in paths."""
    home = str(Path.home())
    # `/root` names nobody, and `/` is a part of every path.
    return redact(text).replace(home, HOME) if home.count("/") > 1 else redact(text)


def _trials(found: Iterable[Trajectory | LeftOut], census: Census) -> Iterator[Trajectory]:
    """What has a reward; the rest is counted."""
    runs: set[str] = set()
    for one in found:
        if isinstance(one, LeftOut):
            census.left_out.append(one)
            continue
        if one.run not in runs:
            runs.add(one.run)
            census.runs += 1
        census.trials += 1
        if one.reward is None:
            census.dropped[NO_REWARD] += 1
        else:
            yield one


def _once(found: Iterable[Trajectory], census: Census) -> Iterator[Trajectory]:
    """Each kernel once for a prompt; prompts that differ in figures alone are the same.

    On one device and of one op: names of devices, and sizes, are figures too.
    """
    seen: set[tuple[str, ...]] = set()
    for one in found:
        key = (one.digest, one.reference, one.device, prompt_key(one.prompt))
        if key in seen:
            census.dropped[TWICE] += 1
            continue
        seen.add(key)
        yield one


def prompt_key(prompt: Iterable[Message]) -> str:
    """A prompt's identity: its text but for the figures, since it quotes what was measured."""
    text = "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
    return sha256(_FIGURE.sub("#", text).encode()).hexdigest()


def _pairs(found: Iterable[Trajectory], census: Census) -> Iterator[dict[str, Any]]:
    """Confirmed kernels of an op on a device, each beside some that earned clearly less."""
    groups: dict[tuple[str, str], list[Trajectory]] = defaultdict(list)
    for one in found:
        groups[one.reference, one.device].append(one)
    for group in groups.values():
        for chosen in _distinct(one for one in group if one.interval is not None):
            worse = _distinct(one for one in group if _is_worse(one, chosen))
            if not worse:
                census.dropped[NO_PAIR] += 1
            else:
                census.count(chosen)
            # The least bad first: what is nearly right, or nearly as fast, teaches most.
            ranked = sorted(worse, key=lambda one: -(one.reward or 0.0))
            for rejected in ranked[:MOST_PAIRS]:
                yield _pair(chosen, rejected)


def _distinct(found: Iterable[Trajectory]) -> list[Trajectory]:
    return list({one.digest: one for one in found}.values())


def _is_worse(one: Trajectory, chosen: Trajectory) -> bool:
    """Whether it was rejected, or is slower beyond both intervals."""
    assert chosen.interval is not None, "chosen for having been confirmed"
    if one.digest == chosen.digest:
        return False
    return one.interval is None or one.interval[1] < chosen.interval[0]


def _pair(chosen: Trajectory, rejected: Trajectory) -> dict[str, Any]:
    return {
        "prompt": chosen.task_prompt,
        "chosen": [{"role": "assistant", "content": in_a_block(chosen.kernel)}],
        "rejected": [{"role": "assistant", "content": in_a_block(rejected.kernel)}],
        "chosen_reward": chosen.reward,
        "rejected_reward": rejected.reward,
        "meta": {"chosen": _meta(chosen), "rejected": _meta(rejected)},
    }


def _meta(one: Trajectory) -> dict[str, Any]:
    kept = (
        "run", "trial", "task", "author", "role", "prompt_is", "digest", "reference", "device",
        "licence", "verdict", "speedup", "interval", "judge",
    )  # fmt: skip
    return {"schema_version": SCHEMA} | one.model_dump(mode="json", include=set(kept))

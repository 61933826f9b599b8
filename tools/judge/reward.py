"""What a verdict is worth to whoever trains a model: one number, from the judge's words alone.

    cheated                                  -1
    any other rejection                       0
    right, no faster than the noise           0.1 * min(1, low)
    right, and faster than every baseline     0.1 + ln(low)

`low` is the lower end of the speedup's 95% interval over the fastest baseline, and faster means
that it clears 1 by this machine's own noise. So a wrong kernel earns nothing, a slow one little and
more the less slow it is, and luck in timing is not paid: the wider the interval, the lower the
reward. Doubling the speed adds ln 2 = 0.69, however fast it was before.

No verdict, no reward: None stands where the judge itself failed, where nothing was timed, and where
a kernel was only compiled.
"""

import math

from tools.verdict import Cheated, Compiled, Correct, JudgeError, Verdict

RIGHT = 0.1
CHEATED = -1.0
REJECTED = 0.0


def reward_of(verdict: Verdict) -> float | None:
    """The reward for a verdict; None where there is nothing to reward."""
    match verdict:
        case JudgeError() | Compiled() | Correct(timing=None):
            return None
        case Cheated():
            return CHEATED
        case Correct(timing=timing):
            assert timing is not None, "the case above"
            low = timing.against_best.low
            return RIGHT + math.log(low) if timing.faster else RIGHT * max(0.0, min(1.0, low))
        case _:
            return REJECTED

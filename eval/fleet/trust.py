"""Which machines of a fleet are still given problems. Nothing here knows Ray.

A machine on which problems die (its disk is full, its driver broken) is free again at once, and
would so be given one after another, until the tries of all were spent on it.
"""

# Problems that died on a machine, none of another having come back meanwhile. One that kills
# whatever runs it counts once, however often it is tried.
DEATHS = 3


class Trust:
    """What became of problems on each machine, by the machine's id."""

    def __init__(self) -> None:
        self.given_up: set[str] = set()
        self._died: dict[str, set[str]] = {}

    def answered(self, machine: str) -> None:
        """A problem came back from there."""
        self._died.pop(machine, None)

    def died(self, machine: str, problem: str) -> bool:
        """A problem died there. Whether the machine is given up by that."""
        died = self._died.setdefault(machine, set())
        died.add(problem)
        if len(died) < DEATHS or machine in self.given_up:
            return False
        self.given_up.add(machine)
        return True

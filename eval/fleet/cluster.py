"""Problems spread over a Ray cluster. Nothing else here knows Ray.

One Ray task is one problem, whole: its baselines are so timed where its kernels are. It holds its
share of a lane (`eval.fleet.lanes`) and one core from start to end. The row comes back with the
problem's folder; whatever a lost machine had at work is given to another, and a machine on which
problems die one after another (`eval.fleet.trust`) is given no more.
"""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eval.fleet.lanes import GPU, PREFIX, lanes_here, lanes_of
from eval.fleet.parcel import unwrap_answer, wrap
from eval.fleet.trust import DEATHS, Trust
from eval.one import Arrangement, folder_of
from eval.problem import Problem
from eval.provenance import PROJECT
from eval.rows import Broken, Row
from knowledge.errors import BadInput
from tools.judge.digest import judge_digest

# A machine that is lost with the same problem this often is lost to the problem.
TRIES = 3
POLL_S = 2.0
PROBE_S = 120.0
# How long a suite waits for a machine to come (back) that has the lane it needs.
PATIENCE_S = 600.0
# Problems that wait in Ray's own queue for each that is at work, so that no machine waits for us.
AHEAD = 2
# The label by which Ray knows a machine.
NODE_ID = "ray.io/node-id"

# What a machine does with a parcel, to give the answer.
Unit = Callable[[bytes], bytes]


class FleetLost(Exception):
    """No machine with the lane that is needed is left, and none has come for a long time."""


class UnitDied(Exception):
    """A problem's process on a machine ended without an answer: it was killed."""


class _Landed(NamedTuple):
    """What came of a try, and on which machine: an answer, or none and how it ended."""

    answer: bytes
    machine: str = ""
    told: str = ""


@dataclass
class _Flight:
    """A problem on its way.

    Args:
        problem: as the suite has it.
        lanes: that it must hold.
        died_on: machines where a try of it died.
        avoided: machines that this try is not given to.
    """

    problem: Problem
    lanes: tuple[str, ...]
    tried: int = 0
    began: float = field(default_factory=time.monotonic)
    died_on: set[str] = field(default_factory=set)
    avoided: frozenset[str] = frozenset()


class Cluster:
    """Runs problems on the machines of a Ray cluster.

    Args:
        arrangement: how a problem is run.
        address: of a cluster; "" for one of this machine's own, which ends with this object.
        beside: problems that share a device. They take turns at timing (`tools.judge.turns`).
        memory: use, and add to, what each machine's own library has learned.
        tell: is given a line when something is lost.
        unit: is run on a machine for each problem.

    Raises:
        BadInput: no cluster there, or one whose machines can't be used.
    """

    def __init__(
        self,
        arrangement: Arrangement,
        address: str = "",
        *,
        beside: int = 1,
        memory: bool = False,
        tell: Callable[[str], None] = lambda text: None,
        unit: Unit | None = None,
    ) -> None:
        self._arrangement = arrangement
        self._beside = beside
        self._memory = memory
        self._tell = tell
        self._judge = judge_digest()
        # What is lost is tried again by us, who can say so.
        self._unit = ray.remote(max_retries=0)(_telling_where(unit or unit_at_node))
        self._trust = Trust()
        self._alone_since: float | None = None
        self._join(address)
        try:
            self._probe()
        except BaseException:
            ray.shutdown()
            raise

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()

    def _join(self, address: str) -> None:
        # Ray would tell its makers of every use, and open a port for a page of its own.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", include_dashboard=False, resources=lanes_here(), **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"--address {address}" if address else "--executor ray"
            told = " ".join(str(error).split())[:200]
            raise BadInput(where, f"no Ray cluster can be had there ({told}).") from error

    def _probe(self) -> None:
        """Ask every machine for its judge before it is given anything."""
        nodes = [one for one in ray.nodes() if one["Alive"]]  # type: ignore[no-untyped-call]
        if not any(_lanes_in(one["Resources"]) for one in nodes):
            raise BadInput(
                "--executor ray",
                f"none of the {len(nodes)} machines of this cluster offers a lane.",
                "Start them with python -m eval.join.",
            )
        asked = {
            one["NodeManagerAddress"]: _digest_there.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(one["NodeID"], soft=False),
                num_cpus=0,
            ).remote()
            for one in nodes
            if _lanes_in(one["Resources"])
        }
        for address, answer in asked.items():
            try:
                digest = ray.get(answer, timeout=PROBE_S)
            except (RayError, GetTimeoutError) as error:
                told = " ".join(str(error).split())[-200:]
                raise BadInput(
                    f"machine {address}",
                    f"can't run Kernelwright ({told}).",
                    "Install the same version on every machine.",
                ) from error
            if digest != self._judge:
                raise BadInput(
                    f"machine {address}",
                    "has another version of Kernelwright: its judge is not the same.",
                    "Install the same version on every machine.",
                )

    def rows(
        self, problems: Sequence[Problem], begin: Callable[[Problem], None]
    ) -> Iterator[tuple[Problem, Row]]:
        """Each problem with its row, as they come back.

        Raises:
            BadInput: a problem asks for a device that no machine has.
            FleetLost: the machines are gone.
        """
        offered = self._offered()
        waiting = [_Flight(one, lanes_of(one.task, offered)) for one in reversed(problems)]
        flying: dict[Any, _Flight] = {}
        try:
            while waiting or flying:
                # Asked once for all that landed: machines come and go, and asking takes time.
                room = self._room() if waiting else 0
                while waiting and len(flying) < room:
                    flight = waiting.pop()
                    flight.tried += 1
                    flight.began = time.monotonic()
                    begin(flight.problem)
                    flying[self._send(flight)] = flight
                landed = _landed(list(flying))
                if not landed:
                    self._see_that_somebody_can(list(flying.values()))
                    for ref in self._stranded(flying):
                        ray.cancel(ref, force=True)
                        waiting.append(flying.pop(ref))
                        waiting[-1].tried -= 1
                for ref in landed:
                    flight = flying.pop(ref)
                    row = self._land(ref, flight)
                    if row is None:
                        waiting.append(flight)
                    else:
                        yield flight.problem, row
        finally:
            for ref in flying:
                ray.cancel(ref, force=True)

    def _send(self, flight: _Flight) -> Any:
        share = 1.0 / self._beside
        parcel = wrap(
            flight.problem,
            self._arrangement,
            judge=self._judge,
            beside=self._beside,
            lane=flight.lanes[-1],
            memory=self._memory,
        )
        needs: dict[str, Any] = {"resources": dict.fromkeys(flight.lanes, share), "num_cpus": 1}
        if GPU in flight.lanes:
            # So that Ray shows the problem one GPU and no other.
            needs["num_gpus"] = share
        flight.avoided = self._avoided(flight)
        if flight.avoided:
            needs["label_selector"] = {NODE_ID: f"!in({', '.join(sorted(flight.avoided))})"}
        return self._unit.options(**needs).remote(parcel)

    def _land(self, ref: Any, flight: _Flight) -> Row | None:
        """A problem's row; None where it was lost and is to be tried again."""
        problem = flight.problem
        try:
            landed: _Landed = ray.get(ref)
        except RayError as error:
            landed = _Landed(b"", told=str(error))
        if landed.answer:
            self._trust.answered(landed.machine)
            return unwrap_answer(landed.answer, folder_of(problem, self._arrangement.out))
        # What went wrong stands last, also in a traceback.
        told = " ".join(landed.told.split())[-300:]
        self._tell(f"{problem.task.name}: lost with its machine or process ({told})")
        if landed.machine:
            self._note_death(landed.machine, flight)
        if flight.tried < TRIES:
            return None
        return Broken(
            name=problem.task.name,
            labels=problem.labels,
            seconds=time.monotonic() - flight.began,
            reason="lost",
            error=f"whatever ran it was lost {TRIES} times; the last time: {told}",
        )

    def _note_death(self, machine: str, flight: _Flight) -> None:
        flight.died_on.add(machine)
        if self._trust.died(machine, flight.problem.task.name):
            nodes = ray.nodes()  # type: ignore[no-untyped-call]
            named = {one["NodeID"]: one["NodeManagerAddress"] for one in nodes}
            self._tell(
                f"machine {named.get(machine, machine)} is given no more problems: {DEATHS} of them"
                " died on it one after another"
            )

    def _avoided(self, flight: _Flight) -> frozenset[str]:
        """Machines that were given up and, if any other can take it, those that it died on."""
        avoided = self._trust.given_up
        if flight.died_on and _takers(flight, self._machines()) - flight.died_on:
            avoided = avoided | flight.died_on
        return frozenset(avoided)

    def _stranded(self, flying: dict[Any, _Flight]) -> list[Any]:
        """Problems kept from all machines that are left, since the one they waited for is gone."""
        kept = [(ref, flight) for ref, flight in flying.items() if flight.avoided]
        machines = self._machines() if kept else {}
        found = [(ref, flight, _takers(flight, machines)) for ref, flight in kept]
        return [ref for ref, flight, takers in found if takers and takers <= flight.avoided]

    def _machines(self) -> dict[str, dict[str, float]]:
        """The lanes of each machine that is alive and not given up, by its id."""
        return {
            one["NodeID"]: _lanes_in(one["Resources"])
            for one in ray.nodes()  # type: ignore[no-untyped-call]
            if one["Alive"] and one["NodeID"] not in self._trust.given_up
        }

    def _offered(self) -> dict[str, float]:
        if not self._trust.given_up:
            return _lanes_in(ray.cluster_resources())  # type: ignore[no-untyped-call]
        offered: dict[str, float] = {}
        for lanes in self._machines().values():
            for name, count in lanes.items():
                offered[name] = offered.get(name, 0.0) + count
        return offered

    def _room(self) -> int:
        """How many problems may be on their way."""
        most = max(self._offered().values(), default=1.0)
        return AHEAD * max(1, round(most * self._beside))

    def _see_that_somebody_can(self, flights: list[_Flight]) -> None:
        """Complain once nobody has offered a lane for a long time that a problem waits for."""
        offered = self._offered()
        lost = [one for one in flights if any(lane not in offered for lane in one.lanes)]
        if not lost:
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = time.monotonic()
            self._tell(f"no machine offers {lost[0].lanes[-1]} any more; waiting for one")
        if time.monotonic() - self._alone_since > PATIENCE_S:
            raise FleetLost(f"no machine has offered {lost[0].lanes[-1]} for {PATIENCE_S:g} s")


def _landed(refs: list[Any]) -> list[Any]:
    """All that have come back, once the first has; none after a while without any.

    Each wait looks at every problem on its way, so it isn't done anew for each that came back.
    """
    first, _ = ray.wait(refs, num_returns=1, timeout=POLL_S)
    if not first:
        return []
    landed, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
    return list(landed)


def _lanes_in(resources: dict[str, float]) -> dict[str, float]:
    return {name: count for name, count in resources.items() if name.startswith(PREFIX)}


def _takers(flight: _Flight, machines: dict[str, dict[str, float]]) -> set[str]:
    """The machines that offer all lanes of a problem."""
    return {
        machine
        for machine, lanes in machines.items()
        if all(lane in lanes for lane in flight.lanes)
    }


def _telling_where(unit: Unit) -> Callable[[bytes], _Landed]:
    """The same, on a machine that says which one it is, also of a try that died on it."""

    def landed(parcel: bytes) -> _Landed:
        machine = ray.get_runtime_context().get_node_id()
        try:
            return _Landed(unit(parcel), machine)
        except (UnitDied, OSError) as error:
            return _Landed(b"", machine, str(error))

    return landed


def unit_at_node(parcel: bytes) -> bytes:
    """Run a parcel's problem in a process of its own, on whatever machine this is.

    Raises:
        UnitDied: it ended without an answer.
    """
    surroundings = {**os.environ, "PYTHONPATH": _path()}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-m", "eval.fleet.unit"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=surroundings,
        ) as unit,
    ):  # fmt: skip
        assert unit.stdin is not None
        assert unit.stdout is not None
        try:
            unit.stdin.write(f"{len(parcel)}\n".encode() + parcel)
            unit.stdin.flush()
        except BrokenPipeError:
            pass  # what it said on its end says more
        answer = unit.stdout.read()
        code = unit.wait()
        if code != 0:
            errors.seek(0)
            said = errors.read()[-2000:].decode(errors="replace").strip()
            raise UnitDied(f"exit {code}: {said}")
        return answer


def _path() -> str:
    given = os.environ.get("PYTHONPATH", "")
    return f"{PROJECT}{os.pathsep}{given}" if given else str(PROJECT)


@ray.remote(max_retries=0)
def _digest_there() -> str:
    return judge_digest()

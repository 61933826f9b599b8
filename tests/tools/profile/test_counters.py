"""`perf stat`: what it is asked and how its table is read."""

from pathlib import Path

from tools.profile.counters import command_line, read_counters, refusal, sentence

TABLE = """# started on Mon Nov  2 10:00:00 2026

1300000000,,cycles:u,500000000,100.00,,
2600000000,,instructions:u,500000000,100.00,2.00,insn per cycle
<not counted>,,dTLB-load-misses:u,0,0.00,,
<not supported>,,cache-misses:u,0,100.00,,
512.25,msec,task-clock,512250000,100.00,1.024,CPUs utilized
48,,page-faults,512250000,100.00,93.704,/sec
"""


def test_counts_are_read_by_event_without_their_modifier() -> None:
    counted, missing = read_counters(TABLE)
    assert counted == {
        "cycles": 1.3e9, "instructions": 2.6e9, "task-clock": 512.25, "page-faults": 48,
    }  # fmt: skip
    assert missing == ("dTLB-load-misses", "cache-misses")
    assert sentence(missing) == "this machine does not give dTLB-load-misses, cache-misses"
    assert sentence(()) == ""


def test_hardware_is_counted_in_the_program_alone_and_from_its_word_on() -> None:
    line = command_line("perf", Path("t"), Path("c"), Path("a"))
    events = line[line.index("-e") + 1].split(",")
    assert "instructions:u" in events
    assert "page-faults" in events
    assert line[line.index("-D") + 1] == "-1"
    assert "--control=fifo:c,a" in line


def test_a_refusal_is_told_from_a_failure() -> None:
    told = "Error:\nAccess to performance monitoring and observability operations is limited.\n"
    assert "perf_event_paranoid" in refusal(told)
    assert refusal("unknown option `control'\n") == "perf stat failed: unknown option `control'"
    assert refusal("") == "perf stat counted nothing"

"""What the fence leaves open beside what it is asked for."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, threading
from tools.runner.landlock import fence
if not fence({scratch!r}, ["/"], {devices!r}):
    print("no fence")
else:
    for path in ("/proc/self/task/%d/comm" % threading.get_native_id(), "/proc/self/comm"):
        try:
            with open(path, "w") as file:
                file.write("named")
            print("written")
        except PermissionError:
            print("refused")
"""


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (["/dev/null"], ["refused", "refused"]),
        # CUDA's driver names its threads as it starts.
        (["/dev/null", "/dev/nvidia0"], ["written", "refused"]),
    ],
)
def test_threads_may_be_named_where_a_driver_has_to(tmp_path, devices, told):
    program = PROGRAM.format(scratch=str(tmp_path), devices=devices)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    if done.stdout.strip() == "no fence":
        pytest.skip("Landlock is not to be had here")
    assert done.stdout.split() == told

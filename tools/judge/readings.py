"""What a GPU says of itself while it is measured: clocks, power, temperature, throttling.

Through NVIDIA's management library where its Python package is there, else by `nvidia-smi`. Only
read, never set.
"""

import contextlib
import importlib
import shutil
import subprocess
from types import ModuleType
from typing import Any

from tools.verdict import DeviceReading

SECONDS = 10.0
# NVML's bits, by the names that nvidia-smi has for them; idle and a user's own limit are no harm.
THROTTLES = {
    0x04: "software power cap", 0x08: "hardware slowdown", 0x10: "sync boost",
    0x20: "software thermal slowdown", 0x40: "hardware thermal slowdown",
    0x80: "hardware power brake slowdown",
}  # fmt: skip
FIELDS = (
    "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "clocks_throttle_reasons.active"
)  # fmt: skip


def throttles(bits: int) -> tuple[str, ...]:
    """The reasons that these bits name."""
    return tuple(name for bit, name in THROTTLES.items() if bits & bit)


def parse_smi(line: str) -> DeviceReading | None:
    """A reading from one line of `nvidia-smi --format=csv,noheader,nounits` over `FIELDS`."""
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != len(FIELDS):
        return None
    *numbers, reasons = parts
    try:
        sm, memory, celsius, watts = (float(text) for text in numbers)
        bits = int(reasons, 16)
    except ValueError:
        # A device without a sensor says "[N/A]".
        return None
    return DeviceReading(
        sm_mhz=sm, memory_mhz=memory, celsius=celsius, watts=watts, throttled=throttles(bits)
    )


class Monitor:
    """Reads one device.

    Args:
        uuid: as the driver gives it, with or without `GPU-` before it.
    """

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        self._nvml: ModuleType | None = None
        self._handle: Any = None
        with contextlib.suppress(ImportError):
            self._nvml = importlib.import_module("pynvml")
        if self._nvml is not None:
            try:
                self._nvml.nvmlInit()
                self._handle = self._nvml.nvmlDeviceGetHandleByUUID(self._uuid)
            except self._nvml.NVMLError:
                self._nvml = None

    def read(self) -> DeviceReading | None:
        """A reading; None where nobody tells."""
        if self._nvml is None:
            return self._by_command()
        nvml, handle = self._nvml, self._handle
        try:
            return DeviceReading(
                sm_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                memory_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
                celsius=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                watts=nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
                throttled=throttles(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
            )
        except nvml.NVMLError:
            return self._by_command()

    def _by_command(self) -> DeviceReading | None:
        command = shutil.which("nvidia-smi")
        if command is None:
            return None
        options = [f"--id={self._uuid}", f"--query-gpu={','.join(FIELDS)}"]
        try:
            done = subprocess.run(
                [command, *options, "--format=csv,noheader,nounits"],
                capture_output=True, text=True, timeout=SECONDS, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        return parse_smi(done.stdout.strip())

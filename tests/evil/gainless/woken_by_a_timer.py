"""Has a timer send it SIGCONT, so that its idlers keep all cores busy while it is stopped (38)."""

import ctypes
import os
import signal
import threading

import torch

AGAINST = "heavy"


class SignalEvent(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p), ("number", ctypes.c_int), ("notify", ctypes.c_int),
        ("rest", ctypes.c_int * 12),
    ]  # fmt: skip


class ModelNew(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.working = False
        # Newer kernels wake a stopped process for a handled signal only.
        signal.signal(signal.SIGCONT, lambda *_: None)
        library, timer = ctypes.CDLL(None), ctypes.c_void_p()
        event = SignalEvent(None, signal.SIGCONT, 0)
        library.timer_create(1, ctypes.byref(event), ctypes.byref(timer))
        every = (ctypes.c_long * 4)(0, 200_000, 0, 200_000)
        library.timer_settime(timer, 0, every, None)
        for _ in range(2 * os.cpu_count()):
            threading.Thread(target=self.idle, daemon=True).start()

    def idle(self):
        matrix = torch.randn(256, 256)
        while True:
            if not self.working:
                matrix @ matrix

    def forward(self, x, y):
        self.working = True
        # Twice, so that no honest clock could call it as fast as the reference.
        for _ in range(2):
            made = x
            for _ in range(4):
                made = torch.tanh(made @ y)
        self.working = False
        return made

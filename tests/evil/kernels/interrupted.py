"""Raises in the harness, between its messages, what a user raises to stop a program (6)."""

import _thread
import signal
import threading

import torch

AGAINST, CAUGHT = "softmax", ("crashed",)

signal.signal(signal.SIGINT, signal.default_int_handler)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        threading.Timer(0.001, _thread.interrupt_main).start()
        return torch.softmax(x, dim=-1)

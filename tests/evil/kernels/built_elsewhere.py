"""Has the compiler write to a place outside the build, by a flag (47)."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST, CAUGHT = "softmax", ("build_failed", "Read-only file system")

SOURCE = 'extern "C" void nothing() {}'
nothing = cpp_kernel(SOURCE, "nothing", "", ("-MD", "-MF", "/var/tmp/dependencies"))


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)

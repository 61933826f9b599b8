"""A library that prints a verdict and ends the process as soon as it is loaded (6, 47)."""

import torch

from tools.backends.cpp.loader import cpp_kernel

AGAINST, CAUGHT = "softmax", ("crashed", "exit status 0")

SOURCE = r"""
#include <unistd.h>
__attribute__((constructor)) static void leave() {
  const char verdict[] = "{\"kind\":\"judged\",\"verdict\":{\"kind\":\"correct\"}}\n";
  for (int file = 1; file < 3; ++file) (void)!write(file, verdict, sizeof verdict - 1);
  _exit(0);
}
extern "C" void nothing() {}
"""
nothing = cpp_kernel(SOURCE, "nothing", "")


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, dim=-1)

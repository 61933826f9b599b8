"""A function or module that is alive in somebody's process, as a reference that others can run.

A function is taken by its own source where that and all it reads can be written down; whatever else
is taken by its graph, as `torch.export` sees it at the shapes of the example inputs, with its
weights in a file beside it. What can't be taken is said in one line.
"""

from tools.capture.again import is_taken_of
from tools.capture.take import Taken, name_of, positional, take

__all__ = ["Taken", "is_taken_of", "name_of", "positional", "take"]

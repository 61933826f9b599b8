"""One folder for each language that kernels are written in: how it is built and loaded."""

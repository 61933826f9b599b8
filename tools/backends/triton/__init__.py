"""Triton without a GPU: compile a candidate for a device, or interpret it on the CPU."""

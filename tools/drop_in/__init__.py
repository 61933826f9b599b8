"""What is written into every exported kernel, in the order of `tools.inline.PARTS`, and its test.

Each part imports the standard library, torch, and parts before it; nothing else of Kernelwright.
"""

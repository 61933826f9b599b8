"""Fused row loops: a small form for pointwise and reduction work, and the printer that makes C++ of it."""

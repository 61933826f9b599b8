"""Fused row loops: a form for pointwise and reduction work, and a printer that makes C++ of it."""

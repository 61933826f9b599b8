"""Transposed convolution split by output phase: see card.toml and notes.md."""

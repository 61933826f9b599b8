"""Convolution with what follows it: see card.toml and notes.md."""

"""Fused row loop: see card.toml and notes.md."""

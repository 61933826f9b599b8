"""Scattered sums: see card.toml and notes.md."""

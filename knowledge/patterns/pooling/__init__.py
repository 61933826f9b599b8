"""Pooling: see card.toml and notes.md."""

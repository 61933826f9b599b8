"""Scans: see card.toml and notes.md."""

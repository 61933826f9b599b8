"""Persistent recurrent net: see card.toml and notes.md."""

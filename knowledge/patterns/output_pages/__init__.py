"""Output pages: see card.toml and notes.md."""

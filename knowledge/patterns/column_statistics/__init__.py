"""Column statistics: see card.toml and notes.md."""

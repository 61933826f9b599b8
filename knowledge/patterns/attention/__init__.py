"""Flash attention: see card.toml and notes.md."""

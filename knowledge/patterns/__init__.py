"""The patterns, a folder each: `card.toml`, `notes.md`, `pattern.py`."""

"""Exact algebra on the graph: see card.toml and notes.md."""

"""Networks on images in channels-last memory: see card.toml and notes.md."""

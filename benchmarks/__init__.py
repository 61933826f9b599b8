"""Speed figures of the project's own parts, each beside its target."""

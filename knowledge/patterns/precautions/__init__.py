"""Pattern: what a rejected kernel is made with on its next try."""

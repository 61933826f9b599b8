"""The judge: trusted, in a process of its own. It never imports, runs or unpickles a candidate."""

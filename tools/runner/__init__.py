"""The runner: untrusted, in a jail. It runs one candidate and knows nothing else."""

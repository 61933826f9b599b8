"""What is known: ops as data, patterns, pages, devices, and what was confirmed before."""

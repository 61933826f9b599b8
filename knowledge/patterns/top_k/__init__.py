"""The largest or smallest of every row."""

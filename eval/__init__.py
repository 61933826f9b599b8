"""Is it any good: whole suites, their scores, and two results side by side."""

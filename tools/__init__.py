"""What can be done to a kernel: trace, build, judge, profile, export."""

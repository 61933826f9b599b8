"""What a measured time means: profilers by rung, and the roofline below them all."""

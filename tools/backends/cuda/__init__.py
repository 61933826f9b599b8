"""CUDA C++: `loader` runs inside candidates, `compile` tells for any device what a kernel takes."""

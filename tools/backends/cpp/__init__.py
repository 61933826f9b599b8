"""C++ for CPUs: `loader` runs inside candidates, `build` compiles for the judge beforehand."""

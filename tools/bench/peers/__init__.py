"""The benchmark's comparison with other stream processors, each in a process of its own."""

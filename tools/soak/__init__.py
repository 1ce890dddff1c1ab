"""Hours at half of the capacity: whether memory, threads, file handles, state and latency stay flat."""

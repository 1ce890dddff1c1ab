"""The benchmark: throughput, latency and memory of each part, as ratios within one run."""

"""More clicks than the job can score: what happens to lag, latency, memory and the records, and how it ends."""

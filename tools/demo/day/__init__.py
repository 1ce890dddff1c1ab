"""The demo of a simulated day in fast motion, with all jobs."""

"""A day of the simulated shop in fast motion, with all jobs."""

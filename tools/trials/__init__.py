"""What trials by fire share: reading topics as a consumer does, and the comparison with an offline run."""

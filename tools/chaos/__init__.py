"""Proof by fire: faults drawn from a seed, on a real broker and cluster under load, and a check of every record."""

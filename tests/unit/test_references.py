"""References are found by version, and what can't be read is asked for again, politely."""

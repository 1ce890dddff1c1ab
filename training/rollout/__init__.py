"""Changing who serves: commands on a rollout, the checks they pass, and the ledger they are written to."""

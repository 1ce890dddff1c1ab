"""What the population did: how often events happened by category, item and so on, in tables that are published."""

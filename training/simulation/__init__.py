"""A simulated shop whose users have a known propensity to buy. For commands, tools and tests only."""

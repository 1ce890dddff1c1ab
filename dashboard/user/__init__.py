"""The page of one user: history, features, scores and why a score is what it is."""

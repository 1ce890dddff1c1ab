"""The page of one user: history, features, scores, and the contributions of the features to a score."""

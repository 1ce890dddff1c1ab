"""Shows records of the topics: the newest ones, or those of one user in time order."""

"""The command `intent features`: list a declaration's features, add to it, measure and explain them."""

"""Inspection of data before anything is built on it: what will be accepted, what it holds, which mapping fits it."""

"""Analysing experiments: sessions, the comparison of two arms, its report."""

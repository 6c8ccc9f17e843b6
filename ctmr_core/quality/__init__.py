"""Checks on one case, measures on a set."""

"""Storms: a small dataset is made again and again while things are broken on purpose, and must come out the same."""

"""Theorems of "Effect of Depth and Width on Local Minima in Deep Learning"."""

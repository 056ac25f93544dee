"""Theorems of "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology"."""

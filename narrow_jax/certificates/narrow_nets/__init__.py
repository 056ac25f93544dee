"""Theorems of "When Expressivity Meets Trainability: Fewer than n Neurons Can Work", on one-hidden-layer nets."""

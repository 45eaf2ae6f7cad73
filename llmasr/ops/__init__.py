"""Numerical operators that exist in this library only."""

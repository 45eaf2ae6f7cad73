"""Losses, schedules, and the state of a run."""

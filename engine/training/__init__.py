"""The training loop, and what it needs besides data, models and losses."""

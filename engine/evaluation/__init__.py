"""Figures of runs and packages, on packed datasets and on files as they are."""

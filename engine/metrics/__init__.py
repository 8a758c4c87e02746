"""Metrics from predictions and labels, in numpy float64."""

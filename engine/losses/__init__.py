"""What training descends: named terms over kernels, what they learn from, and their weighted sum."""

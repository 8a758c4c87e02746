"""Pain from clips: figures, tables and plots of out-of-fold predictions."""

"""What is said of pain from clips: figures, tables and plots of predictions that were made out of fold."""

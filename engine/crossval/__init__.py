"""Cross-validation: every fold trained, its held-out rows predicted, and strategies of training compared."""

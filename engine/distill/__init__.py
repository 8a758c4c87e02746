"""What students learn from: soft labels, features, prototypes, and the teacher that a run opens."""

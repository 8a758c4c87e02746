"""`affect demo`: the whole line on synthetic faces, and the built-in model on one's own."""

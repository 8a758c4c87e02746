"""Find faces, follow them, crop them."""

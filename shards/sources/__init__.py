"""One module per dataset: raw files become an iterator of `Sample`."""

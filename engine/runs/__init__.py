"""The folder of a run: what stands in it, how it is written whole, and how it is opened again."""

"""What is deployed: the manifest and the graphs of a trained model."""

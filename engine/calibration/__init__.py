"""What is fitted after training: temperature and conformal sets."""

"""Training: simulated data, losses, the loop and one recipe a network."""

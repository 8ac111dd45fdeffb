"""The mathematics of training: layers, losses and networks over flat vectors. NumPy only."""

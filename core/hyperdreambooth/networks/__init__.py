"""Parts that several small networks share: the residual branch, and how their weights are stored in a bundle."""

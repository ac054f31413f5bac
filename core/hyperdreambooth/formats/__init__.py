"""Files of weights.

``lidb_file``    reads a .lidb file, without torch; ``lidb_weights`` makes one, and turns it into tensors
``exports``      the same weights as LoRA files for other programs, without torch
``blend``        one set of weights out of several
"""

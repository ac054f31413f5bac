"""The base model and what personalizes it.

``bundle``       the base model with its configuration, basis and hypernetwork; ``loading`` opens one from a folder
``config``       every number of the method
``targets``      which layers are personalized; ``basis``, ``lidb``: their change in a frozen basis (section 4.1)
``adapters``     putting such changes into a model, and taking them out exactly
``hypernetwork`` from a face to LiDB weights (section 4.2); ``eigenfaces``: the encoder of the linear one
``latents``      pictures to latents and back; ``prompts``: text to embeddings; ``denoising``: the UNet and the loss
"""

"""HyperDreamBooth (arXiv 2307.06949): one photo of a person becomes 100 KB of weights for a text-to-image model.

Tensors in, tensors out: nothing here knows of settings, a queue, storage or HTTP. Each layer imports only those below:

    personalize                          the algorithm
    likeness                             how alike generated pictures are
    finetune, sampling, prediction       its steps: fast finetuning, text to image, the hypernetwork's prediction
    formats/                             files: .lidb weights, exports as LoRA, blends of several
    model/                               the base model with its LiDB basis, adapters and hypernetwork; the loss
    faces/, styles/, timesteps, muon     finding and recognising faces; style filters; timesteps; an optimizer
    records, networks/                   options and results, shared with the worker; parts of small networks

``records``, ``faces``, ``styles`` (but for the bundle's recogniser) and the readers in ``formats`` work without torch.
"""

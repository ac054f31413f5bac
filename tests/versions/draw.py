"""Draw a picture with a bundle's folder and a file of weights, as anybody with diffusers does: draw.py FOLDER FILE OUT

It imports nothing of this project, and runs with other versions of diffusers and transformers.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

warnings.simplefilter("ignore")
folder, file, out = sys.argv[1:]
pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
pipeline.set_progress_bar_config(disable=True)
pipeline.load_lora_weights(Path(file).parent, weight_name=Path(file).name)
made = pipeline(
    "a pencil sketch of a sks face",
    negative_prompt="blurred",
    num_inference_steps=4,
    guidance_scale=3.0,
    generator=torch.Generator().manual_seed(5),
    output_type="np",
)
np.save(out, (made.images[0] * 255).round().astype(np.uint8))

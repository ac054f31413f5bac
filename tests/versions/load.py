"""Open a bundle with the versions of transformers and diffusers that are found first, and print what pins weights."""

import sys

from core.hyperdreambooth.model.loading import load_bundle

bundle = load_bundle(sys.argv[1], device="cpu")
print(bundle.fingerprint, bundle.targets_hash)  # noqa: T201

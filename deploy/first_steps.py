"""The first steps with a service, as lines for a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

DEMO_FACE = Path(__file__).resolve().parent.parent / "core" / "bundles" / "faces-128" / "demo-face.png"
"""A face sampled from the embedded model: no real person's photo."""


def curl_lines(url: str, folder: Path, face: Path = DEMO_FACE) -> list[str]:
    """Three lines for a shell: upload a face, wait for its job, generate a picture.

    They work as pasted, one after the other; each finds the ids that it needs in files that the ones before left in
    `folder`.
    """
    answer, picture = (shlex.quote(str(folder / name)) for name in ("subject.json", "picture.png"))
    subject, job = (f"$(grep -oE '{kind}_[0-9a-z]{{20,}}' {answer} | head -1)" for kind in ("sub", "job"))
    body = f"""'{{"prompt": "a pencil sketch of a [V] face", "subject_id": "'{subject}'"}}'"""
    wait = "curl -s -H 'Prefer: wait=60'"
    generate = (
        f"curl -s -H 'Content-Type: application/json' -d {body} {url}/v1/generations",
        f"grep -oE 'job_[0-9a-z]{{20,}}' | head -1 | xargs -I ID {wait} {url}/v1/jobs/ID",
        f"grep -oE '/v1/images/img_[0-9a-z-]+' | head -1 | xargs -I IMG curl -sf -o {picture} {url}IMG",
    )
    return [
        f"curl -s -F photo=@{shlex.quote(str(face))} -F consent=true {url}/v1/subjects | tee {answer}",
        f"{wait} {url}/v1/jobs/{job}",
        " | ".join(generate),
    ]


def greet(url: str, folder: Path) -> None:
    """Print where the service is, and the lines."""
    print(f"\nThe studio is at {url}/  (the API's description: {url}/docs)\n")
    print("Upload a face (here one sampled from the model), wait for its job, generate a picture:\n")
    for line in curl_lines(url, folder):
        print(f"{line}\n")
    print(f"The picture is then {folder / 'picture.png'}. Ctrl-C stops everything.\n", flush=True)

"""The demo: one photo to prompted pictures, through the service as it is, over HTTP (`make demo`).

Leaves in its folder contact-sheet.png, report.json, the pictures, the preview (preview.png), and
the person's weights (face.lidb). The person stays in the service, whose data folder is that of `make run`: its studio
has the pictures, until the person is deleted there or by the next demo.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from core.errors import HyperDreamBoothError
from deploy.contact_sheet import contact_sheet
from deploy.first_steps import DEMO_FACE
from deploy.local import ROOT, FolderInUse, LocalService, stopped_by_signals
from deploy.process import ProcessFailed
from hyperdreambooth import Client, JobFailed, Problem
from hyperdreambooth.cli.progress import ProgressLine
from hyperdreambooth.schemas import JobAnswer

PROMPTS = (
    "a [V] face",
    "a pencil sketch of a [V] face",
    "an oil painting of a [V] face",
    "a watercolor of a [V] face",
    "a pop art portrait of a [V] face",
    "a bronze statue of a [V] face",
    "a pixel art portrait of a [V] face",
    "a sepia photograph of a [V] face",
)
PICTURES_PER_PROMPT = 2
SEED = 1
PREVIEW = "preview.png"
NAME = "Demo"
"""Of the person in the service."""
STUDIO = "http://127.0.0.1:8000/"


@dataclass(frozen=True)
class Report:
    """What the demo measured. Seconds count from the upload on, without set-up and start.

    `likeness` is the service's own, null where it measures none; `images` has the prompt and the path of each picture.
    `preview_seconds` is when each preview was ready, before finetuning had ended.
    """

    weights_bytes: int
    preview_seconds: list[float]
    personalize_seconds: float
    seconds_per_image: float
    total_seconds: float
    likeness: float | None
    images: list[dict[str, str]]


def demonstrate(client: Client, photo: Path, folder: Path, *, prompts: Sequence[str] = PROMPTS) -> Report:
    """Upload the photo, follow the personalizing, have pictures made, and write everything into `folder`.

    The person of an earlier demo is deleted, and this one as well when something fails on the way.

    Raises:
        Problem: the service refused something, the photo most likely.
        JobFailed: the photo was taken, but something went wrong later.
    """
    started = time.monotonic()
    print(f"uploading {photo}")
    accepted = client.create_subject(photo, consent=True, name=NAME)
    _clear(folder)
    try:
        progress = ProgressLine(sys.stdout)
        previews = _Previews(client, folder, started, progress)
        client.wait(accepted.job_id, on_progress=previews)
        ready = time.monotonic()
        subject = client.subject(accepted.id)
        weights = client.weights(accepted.id)
        (folder / "face.lidb").write_bytes(weights)
        if previews.seconds:
            after = ", ".join(f"{seconds:.1f}" for seconds in previews.seconds)
            progress.end(f"previews after {after} s, the last one: {folder / PREVIEW}")
        progress.end(f"personalized in {ready - started:.1f} s, {len(weights):,} bytes of weights")
        images = _generate(client, accepted.id, folder, prompts)
        ended = time.monotonic()
    except BaseException:
        client.delete_subject(accepted.id)
        raise
    for earlier in [each for each in client.subjects() if each.name == NAME and each.id != accepted.id]:
        client.delete_subject(earlier)
    report = Report(
        weights_bytes=len(weights),
        preview_seconds=[round(seconds, 2) for seconds in previews.seconds],
        personalize_seconds=round(ready - started, 2),
        seconds_per_image=round((ended - ready) / len(images), 2),
        total_seconds=round(ended - started, 2),
        likeness=subject.likeness,
        images=images,
    )
    _write(report, photo, folder)
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when there is nothing to show, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="deploy.demo", description="One photo to prompted pictures.")
    parser.add_argument("--face", type=Path, default=DEMO_FACE, help="a photo of one face (one sampled from the model)")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where the pictures go (demo)")
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "run", help="where the service keeps its data")
    args = parser.parse_args(arguments)
    if not args.face.is_file():
        return _complain(f"There is no file {args.face}.")
    print("starting Redis, the API and a worker ...", flush=True)
    try:
        with stopped_by_signals(), LocalService(args.data) as service, Client(service.url) as client:
            report = demonstrate(client, args.face, args.folder)
    except KeyboardInterrupt:
        return _complain("stopped")
    except Problem as problem:
        return _complain(f"{problem.document.title}\n{problem.document.detail}")
    except (JobFailed, FolderInUse, ProcessFailed, HyperDreamBoothError) as error:
        return _complain(str(error))
    print(f"{report.total_seconds:.0f} s in all. Open {args.folder / 'contact-sheet.png'}")
    print(f"The same pictures are in the studio: make run, then {STUDIO}")
    return 0


class _Previews:
    """Fetches each preview as soon as the job has it, and remembers when that was; shows the progress."""

    def __init__(self, client: Client, folder: Path, started: float, progress: ProgressLine) -> None:
        self.seconds: list[float] = []
        self._seen = ""
        self._client, self._file, self._started, self._progress = client, folder / PREVIEW, started, progress

    def __call__(self, job: JobAnswer) -> None:
        if job.preview is not None and job.preview.id != self._seen:
            self._file.write_bytes(self._client.image(job.preview.id))
            self._seen = job.preview.id
            self.seconds.append(time.monotonic() - self._started)
        self._progress(job)


def _generate(client: Client, subject_id: str, folder: Path, prompts: Sequence[str]) -> list[dict[str, str]]:
    """Send all prompts at once, so that the worker can batch them; then fetch the pictures as they are done."""
    jobs = [client.generate(subject_id, prompt, n=PICTURES_PER_PROMPT, seed=SEED) for prompt in prompts]
    images = []
    for number, (prompt, job) in enumerate(zip(prompts, jobs, strict=True), start=1):
        progress = ProgressLine(sys.stdout)
        done = client.wait(job.id, on_progress=progress)
        for variant, image in enumerate(done.images or [], start=1):
            path = folder / f"{number:02}-{variant}.png"
            path.write_bytes(client.image(image.id))
            images.append({"prompt": prompt, "path": str(path)})
        progress.end(prompt)
    return images


def _write(report: Report, photo: Path, folder: Path) -> None:
    columns: dict[str, list[Image.Image]] = {}
    if report.preview_seconds:
        columns["the preview"] = [_open(folder / PREVIEW)]
    for image in report.images:
        columns.setdefault(image["prompt"], []).append(_open(Path(image["path"])))
    contact_sheet(_open(photo), columns).save(folder / "contact-sheet.png")
    (folder / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")


def _clear(folder: Path) -> None:
    """Make the folder, and take out what an earlier demo left; whatever else is in it stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("[0-9][0-9]-*.png", PREVIEW, "contact-sheet.png", "report.json", "face.lidb"):
        for file in folder.glob(name):
            file.unlink()


def _open(file: Path) -> Image.Image:
    with Image.open(file) as image:
        image.load()
        return image


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

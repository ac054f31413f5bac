"""What a bundle says of itself, read from its folder: its settings, its styles with samples, the packs of these."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median

from api.server.public_address import link
from core.errors import BrokerUnavailable
from core.hyperdreambooth.model.config import SAMPLES, BundleConfig, sample_name
from core.hyperdreambooth.styles.styles import STYLES
from core.ids import derived_id
from core.jobs.pages import JobFilter
from core.jobs.service import JobService
from core.records import GenerateResult, JobKind, JobState
from core.work import WorkModel
from hyperdreambooth import schemas

_TIMED = 20
"""Jobs that times are taken from."""
_PACK_STYLES = {
    "Drawn": ("pencil sketch", "charcoal drawing", "blueprint", "woodcut print"),
    "Painted": ("oil painting", "watercolor painting", "pop art portrait", "cartoon"),
    "Photographed": ("black and white photograph", "sepia photograph"),
    "Made of things": ("bronze statue", "marble statue", "neon sign", "mosaic", "pixel art portrait"),
}


@lru_cache(maxsize=4)
def bundle_config(bundle: str) -> BundleConfig | None:
    """The configuration of a bundle in a folder; None for a hub id, and for a pipeline without one."""
    description = Path(bundle) / "bundle.json"
    return BundleConfig.from_json(description.read_text()) if description.is_file() else None


@lru_cache(maxsize=4)
def work_model(bundle: str) -> WorkModel:
    """What the work of requests is estimated by; a hub id is taken for a model with the defaults."""
    config = bundle_config(bundle) or BundleConfig(name="")
    finetune = config.finetune
    has_hypernetwork = (Path(bundle) / "hypernetwork").is_dir()
    from_zero = finetune.starts_from_zero(has_hypernetwork=has_hypernetwork)
    return WorkModel(config.resolution, config.sampling.steps, finetune.steps_taken(from_zero=from_zero), finetune.rows)


def styles_of(bundle: str) -> tuple[schemas.StyleAnswer, ...]:
    """The styles that the bundle keeps, and where their samples are."""
    config = bundle_config(bundle)
    if config is None:
        return ()
    samples = _sampled(bundle)
    return tuple(
        schemas.StyleAnswer(
            name=name,
            prompt=_prompt(name, config),
            sample=link(f"/v1/models/{config.name}/samples/{sample_name(name)}")
            if sample_name(name) in samples
            else None,
        )
        for name in config.finetune.styles
    )


def attributes_of(bundle: str, words: Sequence[str]) -> tuple[schemas.AttributeAnswer, ...]:
    """The words that the bundle honors, and where their samples are."""
    config, samples = bundle_config(bundle), _sampled(bundle)
    return tuple(
        schemas.AttributeAnswer(
            name=word,
            sample=link(f"/v1/models/{config.name}/samples/{sample_name(word)}")
            if config and sample_name(word) in samples
            else None,
        )
        for word in words
    )


def sample_of(bundle: str, model_id: str, name: str) -> bytes | None:
    """The sample picture (WebP) of a style, or of an attribute, of this bundle; None where there is none."""
    config = bundle_config(bundle)
    if (
        config is None
        or config.name != model_id
        or name not in {*map(sample_name, (*config.finetune.styles, *config.attributes))}
    ):
        return None
    file = _samples(bundle) / f"{name}.webp"
    return file.read_bytes() if file.is_file() else None


def times_of(jobs: JobService, tenant: str) -> schemas.ModelTimes:
    """What the newest jobs of a tenant took that succeeded: the medians. Raises StoreUnavailable."""
    try:
        page = jobs.page(tenant, JobFilter(state=JobState.SUCCEEDED), limit=_TIMED)
    except BrokerUnavailable:
        return schemas.ModelTimes(personalize=None, picture=None)
    done = [(job, job.seconds["total"]) for job, _ in page.jobs if "total" in job.seconds]
    personalized = [seconds for job, seconds in done if job.kind is JobKind.PERSONALIZE]
    pictures = [s / len(job.result.images) for job, s in done if isinstance(job.result, GenerateResult)]
    return schemas.ModelTimes(
        personalize=round(median(personalized), 2) if personalized else None,
        picture=round(median(pictures), 2) if pictures else None,
    )


@lru_cache(maxsize=4)
def _sampled(bundle: str) -> frozenset[str]:
    return frozenset(path.stem for path in _samples(bundle).glob("*.webp"))


def _samples(bundle: str) -> Path:
    return Path(bundle) / SAMPLES


def _prompt(style: str, config: BundleConfig) -> str:
    return STYLES[style].phrasings[0].format(subject=f"a [V] {config.class_noun}")


@lru_cache(maxsize=4)
def model_packs(bundle: str) -> tuple[schemas.PackAnswer, ...]:
    """Packs of the styles that the bundle keeps: all of them, then some by their kind; none where it names none."""
    prompts = {style.name: style.prompt for style in styles_of(bundle)}
    lists = {"Every style": tuple(prompts), **_PACK_STYLES}
    packs = ((name, [prompts[style] for style in styles if style in prompts]) for name, styles in lists.items())
    return tuple(
        schemas.PackAnswer(
            id=derived_id("pck", 0, f"{bundle} {name}"),
            name=name,
            prompts=found,
            of_model=True,
            created_at=None,
        )
        for name, found in packs
        if found
    )

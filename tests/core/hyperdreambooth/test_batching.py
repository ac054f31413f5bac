import random
from dataclasses import replace

import pytest
import torch

from core.hyperdreambooth import batching
from core.hyperdreambooth.batching import DenoisingLoop, Drawing
from core.hyperdreambooth.formats.lidb_weights import describe
from core.hyperdreambooth.model.latents import decode_latents
from core.hyperdreambooth.model.lidb import Factors, relax
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import factors_of, generate
from core.lab.testing import random_bundle


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(with_hypernetwork=False)


@pytest.fixture(scope="module")
def people(bundle):
    """Three people of different ranks, with weights strong enough to be seen through a random model."""
    return [person(bundle, rank=number) for number in (1, 2, 3)]


def person(bundle, rank):
    generator = torch.Generator().manual_seed(rank)
    random_ones = {
        name: Factors(torch.randn(pair.left.shape, generator=generator), pair.right)
        for name, pair in relax(bundle.basis.zeros(1, generator=generator), rank, generator=generator).items()
    }
    return describe(bundle, random_ones, class_noun="face", kept_step=1)


def start(bundle, rows, *, steps, height=16):
    factors = factors_of(bundle, rows) if any(row.weights for row in rows) else []
    return Drawing(bundle, rows, factors, steps=steps, size=(height, 16))


def finished(bundle, schedule):
    """Pictures of drawings that enter at their steps: ``schedule`` has the step, rows and options of each."""
    loop, entered, now = DenoisingLoop(bundle), {}, 0
    while len(entered) < len(schedule) or loop.drawings:
        for number, (at, rows, options) in enumerate(schedule):
            if at <= now and number not in entered:
                entered[number] = start(bundle, rows, **options)
                loop.drawings.append(entered[number])
        loop.step()
        now += 1
    with torch.inference_mode():
        return [decode_latents(bundle, entered[number].latents) for number in range(len(schedule))]


def random_schedule(people, seed):
    """Drawings of different subjects, or none, strengths, guidance, sizes and numbers of steps, at random moments."""
    choose = random.Random(seed)
    schedule = []
    for _ in range(4):
        row = Row(
            choose.choice(["a [V] face", "a sketch of a [V] face", "x"]),
            choose.choice(["", "blurry"]),
            choose.choice([None, *people]),
            guidance_scale=choose.choice([None, 1.0, 3.0]),
            strength=choose.choice([None, 0.5]),
        )
        rows = [replace(row, seed=choose.randrange(1000)) for _ in range(choose.randint(1, 2))]
        options = {"steps": choose.randint(1, 4), "height": choose.choice([16, 24])}
        schedule.append((choose.randint(0, 4), rows, options))
    return schedule


@pytest.mark.parametrize(
    ("whose", "every", "below", "limit"), [("subject", 1, 1.0, 0.01), ("base", 2, 1.0, 0), ("subject", 2, 0.6, 0.01)]
)
def test_a_picture_is_what_it_is_alone_whatever_else_is_in_progress(bundle, people, whose, every, below, limit):
    settings = {"unconditional": whose, "guidance_every": every, "subject_below": below, "guidance_limit": limit}
    for name, value in settings.items():
        bundle = bundle.configured(bundle.config.changed(f"sampling.{name}", value))
    schedule = random_schedule(people, seed=f"{whose}{every}{below}")
    for (_, rows, options), among in zip(schedule, finished(bundle, schedule), strict=True):
        alone = torch.cat([generate(bundle, [row], **options) for row in rows])
        assert (among.int() - alone.int()).abs().max() <= 1


def test_the_pass_without_the_prompt_is_made_at_every_other_step(bundle, people, monkeypatch):
    sizes = []
    real = batching.predict
    monkeypatch.setattr(
        batching, "predict", lambda b, noisy, *rest: (sizes.append(len(noisy)), real(b, noisy, *rest))[1]
    )
    halved = bundle.configured(bundle.config.changed("sampling.guidance_every", 2))
    row = Row("a [V] face", weights=people[0], guidance_scale=3.0)
    generate(halved, [row, row], steps=5)
    assert sizes == [4, 2, 4, 2, 4]
    sizes.clear()
    generate(bundle, [replace(row, guidance_scale=1.0)], steps=2)
    assert sizes == [1, 1], "nothing to guide away from"


def test_guidance_leads_no_further_than_its_limit(bundle, people):
    """With the limit so small that it always counts, twice the scale leads twice as far in the first step."""

    def first_step(scale: float, limit: float) -> torch.Tensor:
        limited = bundle.configured(bundle.config.changed("sampling.guidance_limit", limit))
        row = Row("a [V] face", weights=people[0], guidance_scale=scale)
        drawing = Drawing(limited, [row], factors_of(limited, [row]), steps=4, size=(16, 16))
        loop = DenoisingLoop(limited)
        loop.drawings.append(drawing)
        loop.step()
        return drawing.latents

    plain = first_step(1.0, 0.0)
    once, twice, free = (first_step(scale, limit) - plain for scale, limit in ((2.0, 1e-3), (3.0, 1e-3), (2.0, 0.0)))
    assert torch.allclose(2 * once, twice, atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(once.flatten(), free.flatten(), dim=0)
    assert cosine > 0.99
    assert once.norm() < free.norm()


def test_a_device_out_of_memory_gets_smaller_pieces(bundle, people, monkeypatch):
    rows = [Row("a [V] face", weights=people[number % 3], seed=number) for number in range(4)]
    whole = generate(bundle, rows, steps=3)
    sizes = []
    real = batching.predict

    def small(b, noisy, *rest):
        sizes.append(len(noisy))
        if len(noisy) > 3:
            raise torch.OutOfMemoryError
        return real(b, noisy, *rest)

    monkeypatch.setattr(batching, "predict", small)
    assert (generate(bundle, rows, steps=3).int() - whole.int()).abs().max() <= 1
    assert sizes == [8, 4, *[2] * 12], "what was too much is not tried again"


def test_a_device_without_memory_for_a_row_says_so(bundle, monkeypatch):
    def none(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(batching, "predict", none)
    with pytest.raises(torch.OutOfMemoryError):
        generate(bundle, [Row("a")], steps=1)


def test_sizes_take_turns(bundle):
    loop = DenoisingLoop(bundle)
    small, large = (start(bundle, [Row("a")], steps=2, height=height) for height in (16, 24))
    loop.drawings += [small, large]
    assert [loop.step() for _ in range(5)] == [[small], [large], [small], [large], []]


def test_a_drawing_can_be_taken_out(bundle):
    loop = DenoisingLoop(bundle)
    one, other = (start(bundle, [Row("a", seed=seed)], steps=2) for seed in (1, 2))
    loop.drawings += [one, other]
    loop.step()
    loop.discard(one)
    assert (loop.rows, loop.step(), one.step, other.done) == (1, [other], 1, True)

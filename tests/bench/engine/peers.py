"""The same pictures by diffusers, which changes the adapter of its pipeline for each person: by name, or hot."""

from __future__ import annotations

import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load

from core.hyperdreambooth.formats import exports, lidb_file
from core.hyperdreambooth.formats.lidb_weights import LidbWeights, layout_of, to_bytes
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.records import Row
from core.hyperdreambooth.sampling import generate
from tests.bench.engine.method import people_of
from tests.bench.engine.shapes import plain
from tests.bench.engine.timing import Line, interleaved, line, ratios

MISSING = "diffusers' adapters are not measured: they need peft (pip install peft)"
PROMPT = "a [V] face"


def against_diffusers(bundle: Bundle, rounds: int, *, steps: int, target: float = 0.45) -> list[Line]:
    """Eight people's pictures in one batch over one after the other in diffusers; none without peft."""
    if importlib.util.find_spec("peft") is None:
        print(MISSING)
        return []
    people = people_of(bundle)
    rows = [Row(PROMPT, weights=each, seed=number) for number, each in enumerate(people)]
    ours = plain(bundle, steps=steps)
    pipeline = _pipeline(bundle)
    states = [_exported(bundle, each) for each in people]
    named, hot = _named(pipeline, states, steps), _hot(_pipeline(bundle), states, steps)
    taken = interleaved({"ours": lambda: generate(ours, rows), "named": named, "hot": hot}, rounds)
    return [
        line("eight people in one batch / diffusers' set_adapters", "x", ratios(taken, "ours", "named"), target=target),
        line("eight people in one batch / diffusers' hotswap", "x", ratios(taken, "ours", "hot"), target=target),
    ]


def _pipeline(bundle: Bundle) -> Any:
    """The bundle's model as a pipeline of its own."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    copies = {name: copy.deepcopy(part) for name, part in bundle.parts.items()}
    pipeline: Any = StableDiffusionPipeline(
        **copies,
        tokenizer=bundle.tokenizer,
        scheduler=bundle.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.side = bundle.resolution
    return pipeline


def _exported(bundle: Bundle, weights: LidbWeights) -> dict[str, torch.Tensor]:
    """What diffusers' `load_lora_weights` takes, of the UNet: it cannot swap text encoders' adapters hot."""
    file = exports.export(lidb_file.read(to_bytes(weights)), layout_of(bundle), "peft")
    return {name: tensor for name, tensor in load(file).items() if name.startswith("unet.")}


def _named(pipeline: Any, states: list[dict[str, torch.Tensor]], steps: int) -> Callable[[], object]:
    for number, state in enumerate(states):
        _load(pipeline, state, f"person{number}")

    def draw() -> None:
        for number in range(len(states)):
            pipeline.set_adapters(f"person{number}")
            _draw(pipeline, number, steps)

    return draw


def _hot(pipeline: Any, states: list[dict[str, torch.Tensor]], steps: int) -> Callable[[], object]:
    _load(pipeline, states[0], "person")

    def draw() -> None:
        for number, state in enumerate(states):
            _load(pipeline, state, "person", hotswap=True)
            _draw(pipeline, number, steps)

    return draw


def _load(pipeline: Any, state: dict[str, torch.Tensor], name: str, *, hotswap: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of several adapters, which are wanted
        pipeline.load_lora_weights(dict(state), adapter_name=name, hotswap=hotswap)


def _draw(pipeline: Any, seed: int, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline(
            PROMPT.replace("[V]", "sks"),
            num_inference_steps=steps,
            height=pipeline.side,
            width=pipeline.side,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
        )

"""The stages of a bundle, in order; each resumes from its checkpoint and hands on its averaged parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from core.errors import BundleError
from core.hyperdreambooth.faces.recogniser import FaceRecogniser, load_recogniser
from core.hyperdreambooth.model.bundle import Bundle
from core.hyperdreambooth.model.eigenfaces import Eigenfaces
from core.hyperdreambooth.model.hypernetwork import (
    EmbeddingCoordinates,
    EmbeddingEncoder,
    HyperNetwork,
    new_hypernetwork,
)
from core.hyperdreambooth.model.latents import to_pixels
from core.hyperdreambooth.model.loading import from_pipeline, load_bundle
from core.lab.classifier import PictureClassifier, load_classifier
from core.lab.training.architecture import fix_spread, fresh_pipeline
from core.lab.training.autoencoder import autoencoder_losses, decoder_losses, set_scaling
from core.lab.training.base import base_losses
from core.lab.training.classifier import classifier_losses, fresh_classifier, parted, settle_thresholds, with_accuracy
from core.lab.training.data import Faces, LatentCache, keep_numbers, kept_numbers, load_faces
from core.lab.training.hypernetwork import hypernetwork_losses
from core.lab.training.inherit import earlier_latents, inherit
from core.lab.training.loop import Losses, Optimization, TrainingLoop, save_whole
from core.lab.training.precision import quickest
from core.lab.training.preoptimize import REFERENCE_WEIGHTS, preoptimize
from core.lab.training.process_group import SINGLE_PROCESS, ProcessGroup
from core.lab.training.recipe import HyperNetworkTraining, Recipe
from core.lab.training.recogniser import Identities, fresh_identities, recogniser_losses, settle, with_verification
from core.lab.training.rows import Mix, RowSource
from core.lab.training.teacher import FaceTeacher, face_embeddings

BASE = ("unet", "text_encoder")
"""The parts of the base model that a hypernetwork's weights change."""

SHARED = ("autoencoder", "decoder", "base", "hypernetwork")
"""The stages that all processes of a group train; the first of them trains the others alone."""

STAGES = ("autoencoder", "base", "classifier", "recogniser", "decoder", "preoptimize", "hypernetwork", "identity")


class TrainingRun:
    """A recipe, its data and the modules in training. ``run`` takes one stage; finished stages are only loaded."""

    def __init__(self, recipe: Recipe, *, device: str, group: ProcessGroup = SINGLE_PROCESS) -> None:
        self.recipe, self.group = recipe, group
        self._stage_group = group
        self.work = recipe.path(recipe.work)
        self.work.mkdir(parents=True, exist_ok=True)
        side = recipe.bundle.resolution
        with group.in_turn():
            self.faces = self._faces(side, cache=self.work / f"pictures-{side}.npy")
            bundle = from_pipeline(fresh_pipeline(recipe), recipe.bundle, source=str(self.work))
        if self.earlier is not None:
            inherit(bundle, self.earlier, seed=recipe.seed)
        for module in (bundle.vae, bundle.unet, bundle.text_encoder):
            module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classifier = fresh_classifier(recipe.classifier, recipe.data.styles, recipe.seed).to(device)
        people = int(self.faces.labels.max()) + 1
        network = new_hypernetwork(recipe.network, bundle.shapes, seed=recipe.seed, identities=people)
        self.bundle: Bundle = replace(bundle, hypernetwork=network.to(device))

    def _faces(self, side: int, cache: Path | None = None) -> Faces:
        """The training pictures, of as many people as the recipe says."""
        data = self.recipe.data
        faces = load_faces([self.recipe.path(name) for name in data.train], side, cache=cache)
        return faces if data.identities is None else faces.of_first(data.identities)

    def run(self, stage: str) -> None:
        """Bring one stage to its end, or load what an earlier run of it left."""
        self._stage_group = self.group if stage in SHARED else SINGLE_PROCESS
        getattr(self, f"_{stage}")()

    def take(self, parts: Bundle, classifier: PictureClassifier | None) -> None:
        """Finish the stages up to the hypernetwork's with the parts of a bundle.

        Raises:
            BundleError: they are not what the recipe describes.
        """
        assert parts.hypernetwork is not None
        own, known = self.network.state_dict(), parts.hypernetwork.state_dict()
        people = "encoder.identities"
        if people in own and (people not in known or known[people].shape != own[people].shape):
            known[people] = own[people]  # for the identity loss alone: the people of this recipe are others
        try:
            for name in ("vae", *BASE):
                getattr(self.bundle, name).load_state_dict(getattr(parts, name).state_dict())
            self.network.load_state_dict(known)
        except RuntimeError as error:
            raise BundleError(f"bundle {parts.name!r} is not what the recipe describes: {error}") from error
        self.bundle.vae.register_to_config(scaling_factor=parts.vae.config.scaling_factor)
        for stage in ("autoencoder", "decoder", "base", "hypernetwork"):
            self._finish(stage)
        for part in (classifier, parts.recogniser):
            if part is not None:
                part.save(self.work)

    def load(self, stage: str) -> bool:
        """Put a finished stage's parameters into the modules; False when it is not finished."""
        if stage == "classifier":
            found = load_classifier(self.work)
            self.classifier = found or self.classifier
            return found is not None
        if stage == "recogniser":
            self._take_recogniser(load_recogniser(self.work))
            return self.recipe.recogniser is None or self.bundle.recogniser is not None
        if stage in {"decoder", "identity"} and getattr(self.recipe, stage) is None:
            return True
        if stage == "preoptimize":
            return self.recipe.preoptimize is None or (self._folder(stage) / REFERENCE_WEIGHTS).is_file()
        loaded = [self._load(stage, name, module) for name, module in self._modules(stage).items()]
        return all(loaded)

    @property
    def network(self) -> HyperNetwork:
        """The hypernetwork under training."""
        assert self.bundle.hypernetwork is not None
        return self.bundle.hypernetwork

    @cached_property
    def identities(self) -> Identities:
        """The recogniser under training, with what it is trained against."""
        assert self.recipe.recogniser is not None
        people = int(self.faces.labels.max()) + 1
        return fresh_identities(self.recipe.recogniser.channels, people, self.recipe.seed).to(self.bundle.device)

    @cached_property
    def earlier(self) -> Bundle | None:
        """The bundle that the parts begin with, if the recipe names one."""
        return None if self.recipe.start is None else load_bundle(self.recipe.path(self.recipe.start), device="cpu")

    def _earlier_latents(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.earlier is None:
            raise BundleError("autoencoder.anchor holds latents near those of start, and the recipe names none")
        return earlier_latents(self.earlier.vae, pixels, self.earlier.resolution)

    @cached_property
    def teacher(self) -> FaceTeacher | None:
        """The network that the autoencoder learns from what a face is, if the recipe names one."""
        file = self.recipe.data.teacher
        network = None if file is None else FaceTeacher(self.recipe.path(file))
        return None if network is None else network.to(self.bundle.device).eval().requires_grad_(False)

    def _autoencoder(self) -> None:
        config = self.recipe.autoencoder

        def losses(generator: torch.Generator) -> dict[str, torch.Tensor]:
            styles = self.recipe.data.styles
            parts = (self.bundle, self.faces, config, styles, generator, self.teacher)
            return dict(autoencoder_losses(*parts, earlier=self._earlier_latents if config.anchor else None))

        self._train("autoencoder", config.optimization, losses, slices=config.slices)
        fix_spread(self.bundle.vae, config)  # the loss does not depend on it, but weight decay does not know that
        set_scaling(self.bundle, self.faces)
        self._finish("autoencoder")

    def _classifier(self) -> None:
        config = self.recipe.classifier
        self._frozen(self.bundle.vae)
        batch = config.optimization.batch
        faces, aside = parted(self.faces)
        self._train(
            "classifier",
            config.optimization,
            lambda generator: classifier_losses(self.classifier, self.bundle, faces, batch, generator),
        )
        unseen = load_faces([self.recipe.path(self.recipe.data.evaluate)], self.recipe.bundle.resolution)
        self.classifier.cpu().eval()
        settle_thresholds(self.classifier, aside)
        self.classifier.config = with_accuracy(self.classifier, unseen)
        self.classifier.save(self.work)

    def _recogniser(self) -> None:
        config, styles = self.recipe.recogniser, self.recipe.data.styles
        assert config is not None
        self._train(
            "recogniser",
            config.optimization,
            lambda generator: recogniser_losses(self.identities, self.faces, config, styles, generator),
        )
        unseen = load_faces([self.recipe.path(self.recipe.data.evaluate)], self.recipe.bundle.resolution)
        recogniser = self.identities.recogniser.cpu().eval().requires_grad_(False)
        settle(recogniser, self.faces, styles)
        recogniser.config = with_verification(recogniser, unseen)
        recogniser.save(self.work)
        self._take_recogniser(recogniser)

    def _take_recogniser(self, recogniser: FaceRecogniser | None) -> None:
        self.bundle = replace(self.bundle, recogniser=recogniser)

    def _decoder(self) -> None:
        config, first = self.recipe.decoder, self.recipe.autoencoder
        assert config is not None
        self._frozen(self.bundle.vae)
        styles = self.recipe.data.styles
        self._train(
            "decoder",
            config.optimization,
            lambda generator: decoder_losses(self.bundle, self.faces, config, first, styles, generator, self.teacher),
            slices=config.slices,
        )
        self._finish("decoder")

    def _base(self) -> None:
        config = self.recipe.base
        rows = self._rows(Mix(config.photo, config.empty, personal=0.0, other_photo=0.0))
        batch = config.optimization.batch // config.slices
        self._train(
            "base",
            config.optimization,
            lambda generator: base_losses(self.bundle, rows, batch, generator),
            slices=config.slices,
        )
        self._finish("base")

    def _preoptimize(self) -> None:
        config = self.recipe.preoptimize
        assert config is not None
        self._frozen(self.bundle.unet, self.bundle.text_encoder, self.network)
        latents = self._latents(self.faces)

        def load(group: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.from_numpy(self.faces.pictures[group]), latents.plain[torch.from_numpy(group), 0]

        preoptimize(self.bundle, len(self.faces), load, config, self._folder("preoptimize"))

    def _hypernetwork(self) -> None:
        self._measure_eigenfaces()
        self._measure_embeddings()
        self._teach("hypernetwork", self.recipe.hypernetwork)

    def _identity(self) -> None:
        assert self.recipe.identity is not None
        self._teach("identity", self.recipe.identity)

    def _teach(self, stage: str, config: HyperNetworkTraining) -> None:
        self._frozen(self.bundle.unet, self.bundle.text_encoder)
        mix = Mix(config.photo, config.empty, config.personal, config.other_photo, config.blur)
        rows = self._rows(mix, config.warped)
        file = self._folder("preoptimize") / REFERENCE_WEIGHTS
        known = load_file(file) if file.is_file() else {}
        batch = config.optimization.batch // config.slices
        if not config.base_rate and self.bundle.device.type == "cpu":  # frozen, a fifth quicker with its channels first
            self.bundle.unet.to(memory_format=torch.contiguous_format)
        self._train(
            stage,
            config.optimization,
            lambda generator: hypernetwork_losses(
                self.bundle,
                self.network,
                rows.draw(batch, generator),
                known,
                config,
                generator,
                precision=quickest(self.bundle.device),
                teacher=self.teacher if config.taught else None,
            ),
            base_rate=config.base_rate,
            slices=config.slices,
        )
        self._finish(stage)

    def _measure_eigenfaces(self) -> None:
        """Where the network is linear, once: every second face mirrored, as people have no handedness."""
        network, file = self.network, self._folder("hypernetwork") / "eigenfaces.safetensors"
        if not isinstance(network.encoder, Eigenfaces):
            return
        if not file.is_file():
            faces = to_pixels(torch.from_numpy(self.faces.pictures))
            faces[1::2] = faces[1::2].flip(3)
            network.encoder.fit(faces, seed=self.recipe.seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            save_whole(network.encoder.state_dict(), file)
        network.encoder.load_state_dict(load_file(file))

    def _measure_embeddings(self) -> None:
        encoder = getattr(self.network, "encoder", None)
        if isinstance(encoder, EmbeddingEncoder | EmbeddingCoordinates) and self.embeddings is not None:
            encoder.measure(torch.from_numpy(self.embeddings).flatten(0, 1))

    @cached_property
    def embeddings(self) -> np.ndarray | None:
        """The teacher's numbers of all pictures, where the network sees those; from an earlier run if it left them."""
        if not getattr(self.recipe.network, "embedding", 0):
            return None
        if self.teacher is None:
            raise BundleError("a network that sees embeddings needs data.teacher, the recogniser that makes them")
        file = self.work / "embeddings.npy"
        key = json.dumps([len(self.faces), int(self.faces.pictures.sum(dtype=np.int64))])
        with self._stage_group.in_turn():
            known = kept_numbers(file, key)
            if known is None:
                known = face_embeddings(self.teacher, self.faces.pictures)
                keep_numbers(file, key, known)
        return known

    def _train(
        self,
        stage: str,
        optimization: Optimization,
        losses: Callable[[torch.Generator], Losses],
        base_rate: float = 1.0,
        slices: int = 1,
    ) -> None:
        modules = self._modules(stage)
        for module in modules.values():
            module.requires_grad_(True)
        loop = TrainingLoop(
            self._folder(stage),
            modules,
            optimization,
            seed=self.recipe.seed,
            name=stage,
            group=self._stage_group,
            parts=slices,
        )
        for name in BASE:
            loop.slow_down(name, base_rate)
        loop.run(losses)
        loop.use_average()

    def _finish(self, stage: str) -> None:
        if stage in SHARED and not self.group.first:
            return
        folder = self._folder(stage)
        folder.mkdir(parents=True, exist_ok=True)
        if stage == "autoencoder":
            factor = self.bundle.vae.config.scaling_factor
            (folder / "scaling.json").write_text(json.dumps({"scaling_factor": factor}))
        for name, module in self._modules(stage).items():
            save_whole(module.state_dict(), folder / f"{name}.safetensors")

    def _load(self, stage: str, name: str, module: nn.Module) -> bool:
        file = self._folder(stage) / f"{name}.safetensors"
        if not file.is_file():
            return False
        module.load_state_dict(load_file(file))
        scaling = self._folder(stage) / "scaling.json"
        if scaling.is_file():
            self.bundle.vae.register_to_config(**json.loads(scaling.read_text()))
        return True

    def _modules(self, stage: str) -> Mapping[str, nn.Module]:
        if stage == "recogniser":
            return {"identities": self.identities}
        vae, base = self.bundle.vae, {name: self.bundle.components[name] for name in BASE}
        learning_on = base if self.recipe.hypernetwork.base_rate else {}
        modules: dict[str, dict[str, nn.Module]] = {
            "autoencoder": {"vae": vae},
            "decoder": {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv},
            "classifier": {"classifier": self.classifier},
            "base": base,
            "hypernetwork": {"network": self.network, **learning_on},
            "identity": {"network": self.network},
        }
        return modules.get(stage, {})

    def _rows(self, mix: Mix, warped: int = 0) -> RowSource:
        faces, latents = self.faces, self._latents(self.faces)
        if warped:
            side = self.recipe.bundle.resolution
            synthetic = self._faces(2 * side).warped(warped, side, seed=self.recipe.seed)
            faces, latents = faces + synthetic, latents + self._latents(synthetic, "latents-warped.npy")
        embeddings = self.embeddings if mix.personal else None
        data = self.recipe.data
        return RowSource(
            self.bundle, faces, latents, mix, balanced=data.balanced, emphasis=data.emphasis, embeddings=embeddings
        )

    def _latents(self, faces: Faces, file: str = "latents.npy") -> LatentCache:
        data = self.recipe.data
        self._frozen(self.bundle.vae)
        with self._stage_group.in_turn():
            return LatentCache.build(
                self.bundle, faces, data.styles, styled=data.styled, seed=self.recipe.seed, file=self.work / file
            )

    def _folder(self, stage: str) -> Path:
        return self.work / stage

    @staticmethod
    def _frozen(*modules: nn.Module) -> None:
        for module in modules:
            module.eval().requires_grad_(False)

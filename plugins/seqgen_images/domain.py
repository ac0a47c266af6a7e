"""The images domain: classes, attributes and parts of images in, images out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from seqgen.decoders.base import Generated
from seqgen.domain import Artifact, Fields, Plan
from seqgen.errors import ConfigError, InputError, UsageError
from seqgen.model import Context
from seqgen.registry import Card
from seqgen.seeds import item_seed
from seqgen.training.task import TrainingTask
from seqgen_images.family import EXACT, ImageFamily, build_family, own_engine
from seqgen_images.formats import write_rows
from seqgen_images.grids import png, read_png
from seqgen_images.options import ImageOptions
from seqgen_images.painting import Painted, Painter, own_passes
from seqgen_images.placing import Flags, place
from seqgen_images.planning import Asked, canvas_of, conditioned
from seqgen_images.preview import Filled, write_preview
from seqgen_images.readers import read_mask, read_picture
from seqgen_images.requests import COUNT, DRAWN, FROM_OPTIONS, ImageItem, list_items

if TYPE_CHECKING:
    from seqgen_images.judge import Judge


COMPARED = (
    "accuracy", "accuracy_ceiling", "frechet", "frechet_floor", "duplicates", "held_out_nats",
    "passes",
)  # fmt: skip
"""Metrics in the table of `seqgen compare`, and before all others elsewhere."""


RANKED = (
    "tokenizer", "tokens", "codes", "psnr", "ssim", "code_use", "perplexity", "accuracy",
    "by_scale",
)  # fmt: skip
"""Columns of `seqgen bench --tokenizers`."""


class ImagesDomain:
    """Image generation."""

    options = ImageOptions
    compared = COMPARED
    ranked = RANKED

    def __init__(self) -> None:
        self._family: ImageFamily | None = None
        """The models in use, which say of what size images are and what classes there are."""
        self._settings: Mapping[str, Any] = {}
        self._masks: dict[str, Flags] = {}
        self._filled: list[Filled] = []
        """How this run's images filled, for a preview."""
        self._drawn_by = ""
        self._judge_source = ""
        self._judge: Judge | None = None

    def with_settings(self, settings: Mapping[str, Any]) -> ImagesDomain:
        """The same domain; grids are laid out by these settings."""
        other = copy.copy(self)
        other._settings = settings
        return other

    def load(self, source: str, options: ImageOptions) -> Iterator[ImageItem]:
        self._judge_source = options.judge
        yield from list_items(source, options)

    def example(self) -> list[str]:
        return [FROM_OPTIONS]

    def without_input(self, options: ImageOptions) -> str:
        """What a run without INPUT does."""
        what = {"": "", DRAWN: " of all classes"}.get(options.class_, f" of {options.class_}")
        return f"generating {options.count or COUNT} images{what} (--set class=, --set count=)"

    def default_decoder(self, card: Card) -> str:
        """The engine of a checkpoint that holds one."""
        return own_engine(card)

    def decoders_of(self, model: ImageFamily) -> Sequence[str]:
        """The engines of a family."""
        return model.engines

    def build(self, card: Card, device: torch.device, dtype: torch.dtype) -> ImageFamily:
        if dtype != torch.float32:
            raise UsageError(
                f"the images plugin computes in float32, not {dtype}", fix="--dtype float32"
            )
        self._family, self._judge = build_family(card, device), None
        return self._family

    def split(self, item: ImageItem, options: ImageOptions) -> Iterator[ImageItem]:
        """The item with its class understood and its image read."""
        if item.problem is not None:
            raise item.problem
        family = self._models()
        if item.spec == DRAWN:
            item = replace(item, spec=self._drawn(item.id))
        try:
            indices = family.labels.parse(item.spec)
        except ConfigError as error:
            if not item.listed or item.source is not None:  # the class of the options
                raise
            raise InputError(error.what, why=error.why, fix=error.fix) from error
        if item.source is None:
            yield replace(item, indices=indices)
            return
        picture = read_picture(item.source, background=options.background)
        given = place(picture, self._mask(options), family.size, options, name=item.source.name)
        yield replace(item, indices=indices, given=given)

    def condition(
        self, model: ImageFamily, pieces: Sequence[ImageItem], options: ImageOptions
    ) -> Asked:
        return Asked(items=tuple(pieces), device=model.device)

    def plan(
        self,
        model: ImageFamily,
        context: Context | None,
        decoder: str,
        options: ImageOptions,
        seeds: Tensor,
    ) -> Plan:
        assert isinstance(context, Asked)
        engine = model[decoder]
        known = context.known()
        canvas = canvas_of(engine, context, known, seeds)
        sequence, attended = conditioned(engine, context, options)
        inner = engine.decoder(options.decoding(engine.own))
        return Plan(Painter(inner, engine, known), sequence, canvas, attended)

    def finish(
        self,
        generated: Generated,
        pieces: Sequence[ImageItem],
        context: Context | None,
        options: ImageOptions,
    ) -> list[Fields]:
        assert isinstance(generated, Painted)
        assert generated.images_BHWC is not None
        assert generated.pass_BS is not None
        images = generated.images_BHWC.cpu().numpy()
        passes_BS = generated.pass_BS.cpu()
        confidence_BS = generated.confidence_BS.double().cpu()
        known = generated.known
        sampling = asdict(options.sampling(self._models()[generated.engine].own))
        fields = []
        for row, item in enumerate(pieces):
            own_S = own_passes(passes_BS[row])
            fields.append(
                {
                    "file": Artifact(".png", png(images[row])),
                    **self.describe(item),
                    "labels": self._models().labels.names(item.indices),
                    "seed": generated.seeds[row],
                    "engine": generated.engine,
                    "sampling": sampling,
                    "passes": int(own_S.max()),
                    **_confidences(generated.engine, confidence_BS[row][own_S > 0]),
                }
            )
            if options.preview:
                part = None if known is None else known.row(row)
                self._filled.append(Filled(generated.values[row], own_S, part))
                self._drawn_by = generated.engine
        return fields

    def join(self, item: ImageItem, parts: Sequence[Fields], options: ImageOptions) -> Fields:
        return parts[0]

    def describe(self, item: ImageItem) -> Fields:
        """What a row says of an image whether or not it could be made."""
        source = {} if item.source is None else {"source": str(item.source)}
        return {"class": item.spec, **source}

    def write(self, rows: Iterable[Mapping[str, Any]], destination: Path, format: str) -> None:
        options = self._settings.get("options", {})
        write_rows(
            rows,
            destination,
            format,
            scale=options.get("scale", 0),
            columns=options.get("columns", 0),
            labels=None if self._family is None else self._family.labels,
        )

    def score(
        self, rows: Sequence[Mapping[str, Any]], items: Sequence[ImageItem]
    ) -> dict[str, float]:
        """What the judge says of the images, and what they cost.

        `accuracy` (by attribute too), `frechet` and its floor, `duplicates`: see `Judge.figures`.
        `held_out_nats`: nats a token of held-out real images, as measured at the end of training;
        only of engines with an exact likelihood. `accuracy_ceiling`: of real images that the
        engine's tokenizer brought back. `passes`: forward passes an image.
        """
        done = [row for row in rows if row["status"] == "ok"]
        if not done:
            raise InputError("no image was generated")
        judge, family = self._judging(), self._models()
        images = np.stack([read_png(row["file"].data) for row in done])
        asked = [family.labels.parse(row["class"]) for row in done]
        labels_NA = torch.tensor([[-1 if i is None else i for i in row] for row in asked])
        found = judge.figures(torch.from_numpy(images), labels_NA)
        if (nats := family.held_out.get(done[0]["engine"])) is not None:
            found["held_out_nats"] = nats
        if (tokenizer := family[done[0]["engine"]].tokenizer) is not None:
            found["accuracy_ceiling"] = judge.ceiling(tokenizer)
        found["passes"] = sum(row["passes"] for row in done) / len(done)
        return {name: found[name] for name in sorted(found, key=_place)}

    def side_by_side(
        self,
        rows: Mapping[str, Sequence[Mapping[str, Any]]],
        items: Sequence[ImageItem],
        format: str,
    ) -> bytes:
        """A row of images an engine, of the same classes and seeds."""
        from seqgen_images.figures import side_by_side

        return side_by_side(rows, format)

    def chart(
        self, rows: Sequence[Mapping[str, Any]], items: Sequence[ImageItem], format: str
    ) -> bytes:
        """The images, and how many show what was asked for."""
        from seqgen_images.figures import chart

        return chart(rows, self.score(rows, items), format)

    def illustrations(self, options: ImageOptions) -> Sequence[Path]:
        """The preview, if one is asked for."""
        return [Path(options.preview).expanduser()] if options.preview else []

    def illustrate(self, options: ImageOptions) -> str:
        """Draw the preview of what this process decoded."""
        if not self._filled:
            return "no preview: nothing was decoded"
        path = Path(options.preview).expanduser()
        model = self._models()[self._drawn_by]
        part = write_preview(
            self._filled, model, path, scale=options.scale, columns=options.columns
        )
        return f"wrote {path}" + (f" ({part})" if part else "")

    def rank_tokenizers(
        self, model: ImageFamily, sources: Sequence[str], options: ImageOptions
    ) -> tuple[list[Fields], Callable[[str], bytes]]:
        """Tokenizers of the models, those that came with them, and those that are named.

        Args:
            sources: npz files with label columns, or checkpoints of further tokenizers.
        """
        from seqgen_images.tokenizer_report import gathered, rank_tokenizers, report_picture

        self._judge_source = options.judge or self._judge_source
        judge = self._judging()
        tokenizers, images_NHWC, labels_NA = gathered(model, judge, sources)
        rows = rank_tokenizers(tokenizers, images_NHWC, judge, labels_NA)
        return rows, partial(report_picture, tokenizers, rows, images_NHWC)

    def training(self) -> TrainingTask:
        from seqgen_images.training import ImageTask

        return ImageTask()

    def _judging(self) -> Judge:
        """The judge of the options, or the one that came with the models.

        Raises:
            InputError: there is none, or it knows other images.
        """
        from seqgen_images.judge import load_judge

        family = self._models()
        if self._judge is None:
            path = Path(self._judge_source).expanduser() if self._judge_source else family.judge
            if path is None:
                raise InputError(
                    f"the model {family.name} brings nothing to judge its images by",
                    fix="train a judge on real images (seqgen train --plugin images --preset "
                    "judge) and name it: --set judge=RUN",
                )
            self._judge = load_judge(path)
        judge = self._judge
        if judge.labels != family.labels or judge.classifier.size != family.size:
            raise InputError(
                "this judge knows other images than the model makes",
                why="their sizes or their attributes differ",
                fix="train one with the model's own data and labels",
            )
        return judge

    def _drawn(self, item_id: str) -> str:
        """A class for one image: that of a real one if a judge knows some, else any.

        It follows from the id alone, so another seed gives other images of the same classes.
        """
        family = self._models()
        chance = item_seed(0, item_id)
        try:
            real_NA = self._judging().real_labels_NA
        except InputError:
            drawn = [
                item_seed(chance, name) % len(values) for name, values in family.labels.attributes
            ]
        else:
            drawn = real_NA[chance % len(real_NA)].tolist()
        names = family.labels.names(drawn)
        return ",".join(f"{name}={value}" for name, value in names.items())

    def _models(self) -> ImageFamily:
        assert self._family is not None, "build() comes first"
        return self._family

    def _mask(self, options: ImageOptions) -> Flags | None:
        if not options.mask:
            return None
        if options.mask not in self._masks:
            self._masks[options.mask] = read_mask(Path(options.mask).expanduser())
        return self._masks[options.mask]


def _confidences(engine: str, confidence_N: Tensor) -> Fields:
    """Mean probability of the tokens generated, and their log-likelihood where it is one."""
    if engine == "continuous" or not len(confidence_N):
        return {}
    if not bool(confidence_N.isfinite().all()):
        raise InputError(
            "the model's probabilities are no finite numbers",
            why="its weights, the temperature or the guidance drove them out of range",
            fix="--set guidance=1, or another checkpoint",
        )
    found = {"confidence": round(float(confidence_N.mean()), 6)}
    if engine in EXACT:
        total = float(confidence_N.clamp(min=1e-38).log().sum())
        found["log_likelihood"] = round(total, 4)
    return found


def _place(name: str) -> int:
    """Where a metric stands; the sort keeps the others as they come."""
    return COMPARED.index(name) if name in COMPARED else len(COMPARED)

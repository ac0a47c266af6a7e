"""Options of `--set key=value`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from seqgen.errors import ConfigError, did_you_mean
from seqgen.options import option

if TYPE_CHECKING:
    from seqgen.guidance import Guidance
    from seqgen_images.decoding import DecodingConfig

SIDES = ("left", "top", "right", "bottom")
PREVIEW_SUFFIXES = (".gif", ".png")

Schedule = Literal["constant", "linear", "cosine", "interval"]


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How values are drawn: a model's own settings, or these with what the options say.

    Attributes:
        temperature: of the samples; 0 takes the most probable token.
        top_k, top_p: filters of the tokens; 0 and 1 keep all.
        guidance: classifier-free guidance; 1 is none.
        guidance_schedule: how it changes over the passes.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 2.0
    guidance_schedule: Schedule = "constant"


@dataclass(frozen=True)
class ImageOptions:
    """What is generated, how it is decoded, what of an input is kept, and how it is shown."""

    class_: str = option(
        "*",
        help="attributes, such as glasses,hat=no; *: drawn for every image (where an image is "
        "given: left to chance); empty: left to chance",
    )
    count: int | None = option(
        None,
        help="images a class, or an input image; none: 64 without INPUT, else 1",
        range=(1, 1_000_000),
    )

    steps: int = option(
        0,
        help="passes of masked and continuous, or a block of block-diffusion; 0: the engine's own",
        range=(0, 10_000),
    )
    temperature: float | None = option(
        None,
        help="of the samples; 0 takes the most probable token; none: the model's own",
        range=(0.0, 100.0),
    )
    top_k: int | None = option(
        None,
        help="only the k most probable tokens; 0: all; none: the model's own (ours: all)",
        range=(0, 1_000_000),
    )
    top_p: float | None = option(
        None,
        help="only the most probable tokens that reach this mass; 1: all; none: the model's own "
        "(ours: all)",
        range=(0.0, 1.0),
    )
    guidance: float | None = option(
        None,
        help="classifier-free guidance; 1: none, more: closer to the class; none: the model's own "
        "(ours: 2)",
        range=(0.0, 100.0),
    )
    guidance_schedule: Schedule | None = option(
        None,
        help="how guidance changes over the passes: constant, linear, cosine or interval; none: "
        "the model's own (ours: constant)",
    )
    guidance_start: float = option(
        1.0, help="guidance of the first pass (linear, cosine)", range=(0.0, 100.0)
    )
    guidance_first: int = option(
        0, help="first pass with guidance (interval), from 0", range=(0, None)
    )
    guidance_last: int = option(
        -1, help="last pass with guidance (interval); -1: the last one", range=(-1, None)
    )
    schedule: Literal["cosine", "linear"] = option(
        "cosine", help="how many tokens a pass leaves open (masked, continuous)"
    )
    annealing: float = option(
        4.5, help="noise on the confidences of early passes (masked)", range=(0.0, 1000.0)
    )
    remasking: Literal["dynamic", "static"] = option(
        "dynamic", help="which tokens of a block stand: by threshold, or a fixed number a pass"
    )
    threshold: float = option(
        0.9, help="confidence that dynamic remasking asks for", range=(0.0, 1.0)
    )

    mask: str = option("", help="image of an input image's size: white is painted, black is kept")
    outpaint: str = option("", help="pixels to paint around an input image, such as left:4,top:2")
    alpha: Literal["mask", "over"] = option(
        "mask", help="transparent pixels are painted, or laid over `background`"
    )
    background: str = option("white", help="colour under transparent pixels: a name, or #rrggbb")
    resize: Literal["none", "stretch", "crop", "fit"] = option(
        "none", help="how an input image of another size is brought to the model's"
    )

    judge: str = option(
        "", help="what eval and compare judge by: a file or folder; empty: what the model brings"
    )
    scale: int = option(
        0, help="enlargement of grids and previews; 0: to about 96 pixels an image", range=(0, 64)
    )
    columns: int = option(0, help="images a row of a grid; 0: about square", range=(0, 10_000))
    preview: str = option(
        "", help="file.gif: the order in which the picture fills; file.png: as a film strip"
    )

    def __post_init__(self) -> None:
        if self.top_p == 0:
            raise ConfigError("option 'top_p' is 0, which leaves no token", fix="--set top_p=0.95")
        if self.preview and Path(self.preview).suffix.lower() not in PREVIEW_SUFFIXES:
            raise ConfigError(
                f"cannot write the preview {self.preview}: its suffix must be .gif or .png",
                fix=f"--set preview={Path(self.preview).with_suffix('.gif')}",
            )
        if 0 <= self.guidance_last < self.guidance_first:
            raise ConfigError(
                f"guidance_last={self.guidance_last} is before guidance_first={self.guidance_first}"
            )
        self.margins()

    def margins(self) -> dict[str, int]:
        """The sides that `outpaint` names, and their pixels.

        Raises:
            ConfigError: a part is not SIDE:PIXELS.
        """
        found: dict[str, int] = {}
        for part in filter(None, (part.strip() for part in self.outpaint.split(","))):
            side, _, pixels = (text.strip() for text in part.partition(":"))
            if side not in SIDES:
                raise ConfigError(
                    f"outpaint: unknown side {side!r} in {part!r}", fix=did_you_mean(side, SIDES)
                )
            if not (pixels.isascii() and pixels.isdigit()):
                raise ConfigError(
                    f"outpaint: {part!r} names no number of pixels",
                    fix=f"write {side}:4, for example",
                )
            if side in found:
                raise ConfigError(f"outpaint names {side} twice")
            found[side] = int(pixels)
        return found

    def sampling(self, own: SamplingSettings) -> SamplingSettings:
        """What the options say of sampling; what they leave open is the model's own."""
        said = {name: getattr(self, name) for name in vars(own)}
        return replace(own, **{name: value for name, value in said.items() if value is not None})

    def decoding(self, own: SamplingSettings) -> DecodingConfig:
        """The settings of the recipes, of a model with these settings of its own."""
        from seqgen_images.decoding import DecodingConfig

        chosen = self.sampling(own)
        return DecodingConfig(
            steps=self.steps,
            temperature=chosen.temperature,
            top_k=chosen.top_k,
            top_p=chosen.top_p,
            annealing=self.annealing,
            schedule=self.schedule,
            remasking=self.remasking,
            threshold=self.threshold,
        )

    def guide(self, own: SamplingSettings) -> Guidance | None:
        """The guidance; None where it would change nothing."""
        from seqgen.guidance import Guidance

        chosen = self.sampling(own)
        ramp = chosen.guidance_schedule in ("linear", "cosine")
        if chosen.guidance == (self.guidance_start if ramp else 1.0) == 1.0:
            return None
        return Guidance(
            chosen.guidance,
            chosen.guidance_schedule,
            start=self.guidance_start,
            first=self.guidance_first,
            last=self.guidance_last,
        )

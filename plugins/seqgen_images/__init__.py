"""The images plugin's light module: what it registers. Nothing heavy is imported here.

The work sits in `seqgen_images.domain.ImagesDomain`, imported when the domain is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqgen.domain import DomainInfo
from seqgen.hookspecs import hookimpl


class ImagesPlugin:
    """Small images in every generation order, from classes and attributes; inpainting."""

    api = 1

    @hookimpl
    def seqgen_domains(self) -> Sequence[DomainInfo]:
        return [
            DomainInfo(
                name="images",
                summary="Images from classes and attributes, in any generation order",
                factory="seqgen_images.domain:ImagesDomain",
                inputs="images to complete (files, folders, globs), or a list of classes (.txt, "
                ".jsonl, -); without INPUT it is --set class=... --set count=16",
                formats=("png", "npz", "jsonl"),
                decoders={
                    "raster": "token after token, row by row (AR)",
                    "diagonal": "an anti-diagonal a pass (neighbouring, NAR)",
                    "next-scale": "coarse to fine, a scale a pass (VAR)",
                    "masked": "everywhere at once, the most confident tokens first (MaskGIT)",
                    "block-diffusion": "a row at a time, each filled in a few passes (SDAR)",
                    "continuous": "patches of pixels in random order, by flow matching (MAR)",
                },
                default_decoder="masked",
                extra="images",
                batch_size=16,
            )
        ]


plugin = ImagesPlugin()

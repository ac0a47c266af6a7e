"""The small classifier that judges generated images: which attributes does a picture show?

Three convolutions, 64 features, a linear layer an attribute. It is trained on real images; its
features are the space in which distributions of images are compared.

Shapes: B images, C channels, H and W, A attributes, F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgen_images.labels import Labels

FEATURES = 64


class AttributeClassifier(nn.Module):
    """Attributes of images.

    Args:
        labels: the attributes.
        size: height and width of the images.
        channels: of the images.
    """

    def __init__(self, labels: Labels, size: tuple[int, int], channels: int = 3) -> None:
        super().__init__()
        self.labels, self.size, self.channels = labels, size, channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(48, 64, 3, padding=1, stride=2),
            nn.ReLU(),
        )
        height, width = ((side + 3) // 4 for side in size)  # two strides of 2
        self.last = nn.Linear(64 * height * width, FEATURES)
        self.heads = nn.ModuleList(
            nn.Linear(FEATURES, len(values)) for _, values in labels.attributes
        )

    def features(self, images_BCHW: Tensor) -> Tensor:
        """[B, F] of images in [-1, 1]."""
        h: Tensor = self.last(self.convolutions(images_BCHW).flatten(1))
        return F.relu(h)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Logits [B, values] of every attribute."""
        features_BF = self.features(images_BCHW)
        return [head(features_BF) for head in self.heads]

    def loss(self, images_BCHW: Tensor, labels_BA: Tensor) -> Tensor:
        """Mean cross-entropy of the attributes; labels int64 [B, A]."""
        logits = self(images_BCHW)
        parts = [F.cross_entropy(own, labels_BA[:, a]) for a, own in enumerate(logits)]
        return torch.stack(parts).mean()

    def judged(self, images_BCHW: Tensor) -> Tensor:
        """The value of every attribute, int64 [B, A]."""
        return torch.stack([own.argmax(-1) for own in self(images_BCHW)], dim=1)

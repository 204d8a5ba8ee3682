"""The teacher of VpbSD: Swin UNETR whose deepest features go through a codebook.

VpbSD, sections 3.3 and 3.4, on MONAI's Swin UNETR (Hatamizadeh et al. 2022). What the encoder says
(16 × feature_size channels, a voxel for 32³) is brought down to the width of the student's deepest
features by a 1×1 convolution, replaced by codes, and brought back up.

Only the coarsest level goes through the codes. As in Swin UNETR the decoder also sees the finer
levels and the image itself by skip connections, in pretraining too, so that an image can be built
well with codes that say little: the reconstruction error does not measure them, and teaches them
little. The more so as MONAI normalizes each channel of what comes from them over the patch, so
that what all voxels of a patch share is lost. So the codes alone are also to tell a coarse image,
which the paper does not have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vasculome.models.codebook import Codebook, CodeScores, Quantized
from vasculome.models.gamma import corrected

STRIDE = 32
"""Voxels that patches are multiples of along each axis."""

COARSE = 8
"""Edge, in voxels, of what the codes tell the mean intensity of."""


@dataclass(frozen=True)
class TeacherDesign:
    """What a network is: all of it is in its model card.

    Attributes
    ----------
    feature_size
        Channels of the finest level, a multiple of 12; each level doubles them.
    depths, heads
        Transformer blocks, and their attention heads, of each of the four levels.
    student_width
        Channels of the codes: of the student's deepest features.
    n_codes
        Codes of the codebook.
    window
        Edge of the windows within which voxels attend to each other, at each level.
    code_scores
        What codes are drawn by while they are learnt: see
        :data:`vasculome.models.codebook.CodeScores`.
    gamma
        Power that intensities are raised to before all else, as of :mod:`vasculome.models.gamma`.
    """

    feature_size: int = 48
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    student_width: int = 44
    n_codes: int = 512
    window: int = 7
    code_scores: CodeScores = "relative"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if self.feature_size < 12 or self.feature_size % 12:
            raise ValueError(f"feature_size must be a multiple of 12, not {self.feature_size}")
        if len(self.depths) != 4 or len(self.heads) != 4:
            raise ValueError("depths and heads must be of four levels")
        if min(*self.depths, *self.heads) < 1 or self.window < 2:
            raise ValueError("depths and heads must be 1 or more, window 2 or more")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be above 0, not {self.gamma}")
        for level, heads in enumerate(self.heads):
            if (width := self.feature_size * 2**level) % heads:
                raise ValueError(f"{heads} heads do not share {width} channels evenly")

    @property
    def encoded_width(self) -> int:
        """Channels of what the encoder says."""
        return 16 * self.feature_size


SMALL = TeacherDesign(feature_size=12, window=4)
"""4 M parameters: what a processor can train. Attention within 7³ voxels would take most of its
time, and be padded to do so: the levels of a patch of 64³ have 32, 16, 8 and 4 voxels."""


@dataclass(frozen=True)
class Encoded:
    """What the teacher's encoder says of a batch of patches; a voxel for 32³ of the image.

    Attributes
    ----------
    levels
        Of the transformer: five, from fine to coarse.
    aligned
        The coarsest, brought to the student's width, (N, student_width, z/32, y/32, x/32).
    quantized
        The codes in their place, and the codebook's loss.
    """

    levels: list[Tensor]
    aligned: Tensor
    quantized: Quantized

    @property
    def deepest(self) -> Tensor:
        """The coarsest level, (N, 16 × feature_size, z/32, y/32, x/32)."""
        return self.levels[-1]


@dataclass(frozen=True)
class TeacherAnswer:
    """What the teacher says of a batch of patches.

    Attributes
    ----------
    logits
        Of vessel against background, (N, 1, z, y, x).
    image
        The images themselves, as they are built from the codes and from the skip connections,
        (N, 1, z, y, x).
    coarse
        Mean intensities of cubes of :data:`COARSE` voxels, from the codes alone,
        (N, 1, z/8, y/8, x/8).
    encoded
        What all are built from, beside the images.
    """

    logits: Tensor
    image: Tensor
    coarse: Tensor
    encoded: Encoded


class Teacher(nn.Module):
    """See :class:`TeacherDesign`.

    ``fine_tuned`` is a buffer: whether the network has been shown labels, or only images.
    """

    fine_tuned: Tensor

    def __init__(self, design: TeacherDesign) -> None:
        # MONAI takes seconds to import: those who only use a student need not wait.
        from monai.networks.nets.swin_unetr import SwinUNETR  # noqa: PLC0415

        super().__init__()
        self.design = design
        self.swin = SwinUNETR(
            in_channels=1,
            out_channels=1,
            feature_size=design.feature_size,
            depths=design.depths,
            num_heads=design.heads,
            window_size=design.window,
        )
        self.align = nn.Conv3d(design.encoded_width, design.student_width, 1)
        self.codebook = Codebook(design.n_codes, design.student_width, scores=design.code_scores)
        self.widen = nn.Conv3d(design.student_width, design.encoded_width, 1)
        self.image_head = nn.Conv3d(design.feature_size, 1, 1)
        per_code = STRIDE // COARSE
        self.coarse_head = nn.ConvTranspose3d(design.student_width, 1, per_code, stride=per_code)
        self.register_buffer("fine_tuned", torch.tensor(False))

    @property
    def last(self) -> nn.Module:
        """The layer that says logits."""
        return self.swin.out

    def encode(self, x: Tensor, *, learning: bool = False, temperature: float = 1.0) -> Encoded:
        """Return what the encoder says, without the work of the decoder.

        Parameters
        ----------
        x
            Images from 0 to 1, (N, 1, z, y, x); z, y and x are multiples of 32, and 64 at least:
            MONAI normalizes each channel of a patch, and of one voxel nothing would remain.
        learning, temperature
            As :meth:`vasculome.models.codebook.Codebook.forward`.

        Raises
        ------
        ValueError
            The patches are of other sizes.
        """
        if x.ndim != 5 or x.shape[1] != 1 or any(n % STRIDE for n in x.shape[2:]):
            raise ValueError(
                f"patches must be (N, 1, z, y, x) with multiples of {STRIDE}, not {tuple(x.shape)}"
            )
        if max(x.shape[2:]) == STRIDE:
            raise ValueError(f"patches must be longer than {STRIDE} along some axis")
        levels = self.swin.swinViT(corrected(x, self.design.gamma), self.swin.normalize)
        aligned = self.align(levels[-1])
        quantized = self.codebook(aligned, learning=learning, temperature=temperature)
        return Encoded(levels, aligned, quantized)

    def keep_codes(self) -> None:
        """Leave the transformer and the codes as they are; all else goes on learning."""
        for kept in (self.swin.swinViT, self.align, self.codebook, self.coarse_head):
            kept.requires_grad_(False)

    def coarse(self, x: Tensor) -> Tensor:
        """Return what the codes alone are to tell of images, (N, 1, z/8, y/8, x/8)."""
        return nn.functional.avg_pool3d(corrected(x, self.design.gamma), COARSE)

    def forward(
        self, x: Tensor, *, learning: bool = False, temperature: float = 1.0
    ) -> TeacherAnswer:
        """Return what the network says of patches; see :meth:`encode`."""
        encoded = self.encode(x, learning=learning, temperature=temperature)
        swin, levels = self.swin, encoded.levels
        # As SwinUNETR.forward, but that the coarsest level comes from the codes.
        coarsest = swin.encoder10(self.widen(encoded.quantized.features))
        y = swin.decoder5(coarsest, levels[3])
        y = swin.decoder4(y, swin.encoder4(levels[2]))
        y = swin.decoder3(y, swin.encoder3(levels[1]))
        y = swin.decoder2(y, swin.encoder2(levels[0]))
        y = swin.decoder1(y, swin.encoder1(corrected(x, self.design.gamma)))
        coarse = self.coarse_head(encoded.quantized.features)
        return TeacherAnswer(swin.out(y), self.image_head(y), coarse, encoded)

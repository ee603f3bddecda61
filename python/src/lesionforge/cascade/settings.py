"""The settings of the cascade, which travel in its card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lesionforge.nets.settings import Within

NETWORKS = ("cnn1", "cnn2")

Architecture = Literal["dense", "valverde2017", "nicmslesions"]
Count = Annotated[int, Within(1, 1_000_000)]


@dataclass(frozen=True)
class CascadeConfig:
    """Every number of the cascade. The defaults are the published configuration: Valverde et al. 2017, where they named one.

    `CONFIGURATIONS` has ours too. `cnn1_threshold` serves both the choice of CNN2's negatives and inference (the published
    code used 0.5 and 0.8).
    """

    network: Architecture = "valverde2017"
    """The layers of both networks, a name in `train.network.ARCHITECTURES`."""
    normalisation: Literal["zscore", "prepared"] = "zscore"
    """What the networks see: z-scores of the brain, or the intensities as prepared, where a heavy lesion load shifts nothing."""
    candidate_flair_z: float = 0.5
    """Only voxels of the brain whose normalised FLAIR is above this are looked at."""
    candidate_depth_mm: Annotated[float, Within(0, 100)] = 0.0
    """Only voxels farther than this from the surface of the brain are looked at (ours): meninges and the rims of a brain mask are
    bright in some scans, lesions are not there. Of 2,998 lesions in 28 masks of open_ms none lies wholly within 4 mm."""
    cnn1_threshold: Annotated[float, Within(0, 1)] = 0.5
    """CNN2 sees the voxels whose CNN1 probability is above this."""
    mirrored: bool = False
    """Whether a scan's probabilities are the mean of those with and without left and right changed (test-time flip, ours)."""
    fallback_flair_z: float = 2.0
    """CNN2's negatives where CNN1 leaves too few: normalised FLAIR above this."""
    lesion_threshold: Annotated[float, Within(0, 1, above=True)] = 0.8
    """A voxel is lesion when its final probability is at least this (nicMSlesions: t_bin)."""
    lowest_threshold: Annotated[float, Within(0, 1, above=True)] | None = None
    """Where there is one (ours), each scan has a threshold of its own, from this up to `lesion_threshold`: that from which on its
    lesions have `load_share` of the volume of its hyperintense white matter. A network trained on many lesions takes too much
    for lesion in a patient with few, and the other way round."""
    load_share: Annotated[float, Within(0, 1)] = 1.0
    """Less than 1 where lesions grow afterwards."""
    growth_mm: Annotated[float, Within(0, 100)] = 0.0
    """How far lesions grow, along the axes, into what is hyperintense around them (ours). Networks are sure of the heart of a
    large lesion and miss the rest of it where scans differ from those they were trained on; what is connected with a lesion, as
    bright and off the cortex belongs to it, if it is not far."""
    min_volume_mm3: Annotated[float, Within(0, 1_000_000)] = 20.0
    """Lesions of this volume or less are dropped, before any growth (nicMSlesions: l_min, in voxels of 1 mm³)."""
    batch_size: Count = 128
    """Patches, or blocks of the network dense, in one step of the optimiser."""
    epochs: Annotated[int, Within(1, 10_000)] = 200
    patience: Count = 25
    """Epochs without a better validation loss before training ends; without validation scans it never does."""
    optimizer: Literal["adadelta", "adam"] = "adadelta"
    learning_rate: Annotated[float, Within(0, 1000, above=True)] = 1.0
    """For adam the highest: it rises over the first twentieth of the steps, then falls to a hundredth along a cosine."""
    steps_per_epoch: Annotated[int, Within(1, 1_000_000)] = 156
    """Steps of the optimiser in one epoch: bounds time, and every arm gets the same number of them (ours)."""
    negatives_per_lesion: Count = 1
    """Patches or blocks of an epoch around healthy voxels, for each around a lesion voxel."""
    mined_per_negative: Count = 40
    """Candidates that CNN1 judges for each negative of an epoch, to find CNN2's: bounds time (ours).

    With 10 CNN2 saw so few kinds of negatives that the phantom's test patient fell from a Dice of 0.66 to 0.40.
    """
    synthetic_weight: Annotated[float, Within(0, 1000, above=True)] = 1.0
    """How often a made scan is drawn, against a real one: of blocks the scan, of patches its voxels."""

    def __post_init__(self) -> None:
        """Raise ValueError when the lower threshold is above the other, or an epoch has fewer samples than steps."""
        if self.lowest_threshold is not None and self.lowest_threshold > self.lesion_threshold:
            raise ValueError(f"lowest_threshold {self.lowest_threshold:g} is above lesion_threshold {self.lesion_threshold:g}")
        if self.lesions_per_epoch + self.negatives_per_epoch < self.steps_per_epoch:
            raise ValueError(
                f"batch_size {self.batch_size}, steps_per_epoch {self.steps_per_epoch} and negatives_per_lesion "
                f"{self.negatives_per_lesion} leave some steps without a sample"
            )

    @property
    def in_blocks(self) -> bool:
        """Whether the networks judge blocks of voxels, not the centres of patches."""
        return self.network == "dense"

    @property
    def samples_per_epoch(self) -> int:
        """Patches or blocks in one epoch."""
        return self.steps_per_epoch * self.batch_size

    @property
    def lesions_per_epoch(self) -> int:
        """Those of `samples_per_epoch` around lesion voxels."""
        return self.samples_per_epoch // (1 + self.negatives_per_lesion)

    @property
    def negatives_per_epoch(self) -> int:
        """Those of `samples_per_epoch` around healthy voxels."""
        return self.lesions_per_epoch * self.negatives_per_lesion


CONFIGURATIONS = {
    "lesionforge": CascadeConfig(
        network="dense",
        normalisation="prepared",
        candidate_flair_z=0.0,
        candidate_depth_mm=4.0,
        cnn1_threshold=0.03,
        mirrored=True,
        fallback_flair_z=1.0,
        lesion_threshold=0.99,
        lowest_threshold=0.3,
        load_share=0.5,
        growth_mm=15.0,
        min_volume_mm3=10.0,
        batch_size=4,
        epochs=20,
        patience=10,
        optimizer="adam",
        learning_rate=2e-3,
        steps_per_epoch=100,
    ),
    "published": CascadeConfig(),
    # The program of 2019. Its min_error, below which it blanks a whole map, is left out: it hides every lesion of a patient with
    # few.
    "nicmslesions": CascadeConfig(
        network="nicmslesions",
        lesion_threshold=0.5,
        min_volume_mm3=10.0,
        epochs=400,
        patience=50,
        negatives_per_lesion=2,
    ),
}

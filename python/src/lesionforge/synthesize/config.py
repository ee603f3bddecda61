"""Every setting of the generator, with the value that Salem et al. (IEEE Access 2019) published beside ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from lesionforge.errors import InputError
from lesionforge.nets.settings import Within, settings_of
from lesionforge.synthesize.levels import LEVEL_COUNT, PUBLISHED_LEVELS

# Raised when a card or what a network takes in changes its meaning.
CARD_VERSION = 4
# Three poolings: sides of what goes through the network must be divisible by this.
SIZE_MULTIPLE = 8

Count = Annotated[int, Within(1, 1_000_000)]
Share = Annotated[float, Within(0, 1)]


@dataclass(frozen=True)
class GeneratorConfig:
    """The settings of one generator, saved in its card; the defaults are those of the published method."""

    name: str
    # Published: T1w and FLAIR; T2w and PDw may follow. Each contrast has its own encoder and decoder.
    contrasts: tuple[str, ...] = ("t1w", "flair")
    # Channels of the first level. Published: 32.
    width: Annotated[int, Within(1, 256)] = 32
    # One PReLU slope per channel instead of one per pixel. Published: False. With True the network is fully convolutional.
    shared_slopes: bool = False
    # Published: True. Without it the output is linear: normalised intensities have both signs.
    output_prelu: bool = True
    # Each contrast has levels of its own, in units of its own scale, the same in every scan (levels.Scale). An encoder takes
    # the cumulative masks M1..M12 of its contrast, which unlike disjoint bands carry an order, and the filled image with each
    # lesion voxel at the middle of its level; a decoder gives what is to be added to that; what is painted stays in its level.
    # Published: False, the bands W1..W8 of the FLAIR for all, normalised intensities, and decoders that give whole images.
    own_levels: bool = False
    # Slices above and below that come along as input channels. Published: 0.
    neighbours: Annotated[int, Within(0, 16)] = 0
    # Share of a tile's reconstruction errors that goes to its voxels with a level above 0 and their rim, be they few or many.
    # Published (None): every voxel weighs the same.
    lesion_share: Share | None = None
    # How far in voxels, in plane, the rim reaches. Published: no rim.
    rim_voxels: Annotated[int, Within(0, 16)] = 0
    # Share of the tiles of an epoch that are drawn around a voxel with a level above 0. Published: 0, every tile of the grid.
    lesion_tiles: Share = 0.0
    # Side of the square axial tiles in voxels. Published: 64.
    tile_size: Annotated[int, Within(SIZE_MULTIPLE, 1024)] = 64
    # Distance between tiles in training, in voxels. Published: 32; tiles without a brain voxel are left out.
    training_stride: Count = 32
    # Distance between tiles in painting, predictions averaged. Published: 16. None: windows around what is painted, for shared
    # slopes only.
    inference_stride: Count | None = 16
    # Tiles of an epoch. Published (None): as many as the grid has.
    tiles_per_epoch: Count | None = None
    # Published: 32.
    batch_size: Count = 32
    # Of Adam. Published: 1e-3.
    learning_rate: Annotated[float, Within(0, 1, above=True)] = 1e-3
    # The limit. Published: 70.
    epochs: Annotated[int, Within(1, 10_000)] = 70
    # Epochs without a better one after which training ends. Published (None): it never ends early.
    patience: Count | None = None
    # Share of the subjects that validate. Published: 0.3 (the alphabetically first cases; ours are drawn).
    validation_fraction: Share = 0.3

    def __post_init__(self) -> None:
        """Raise ValueError for settings that exclude each other."""
        if self.tile_size % SIZE_MULTIPLE:
            raise ValueError(f"tile_size is {self.tile_size}, but must be a multiple of {SIZE_MULTIPLE}")
        if self.inference_stride is None and not self.shared_slopes:
            raise ValueError("inference_stride is null, but windows of any size need shared_slopes")

    @property
    def slices(self) -> int:
        """Slices that the network sees at once."""
        return 1 + 2 * self.neighbours

    @property
    def slice_channels(self) -> int:
        """Channels of a slice of an encoder's input: the image and its level masks."""
        return 1 + (LEVEL_COUNT if self.own_levels else PUBLISHED_LEVELS)

    @property
    def reconstructions(self) -> dict[str, str]:
        """The training outputs and their contrasts: each contrast decoded from its own latent, the others' and the fused one."""
        return {f"{name}_from_{source}": name for name in self.contrasts for source in (*self.contrasts, "fused")}


# The published method, and ours: fully convolutional, aware of the neighbouring slices, trained where lesions are.
CONFIGURATIONS = {
    config.name: config
    for config in (
        GeneratorConfig("salem2019"),
        GeneratorConfig(
            "lesionforge",
            shared_slopes=True,
            output_prelu=False,
            own_levels=True,
            neighbours=1,
            lesion_share=0.5,
            batch_size=8,
            rim_voxels=1,
            lesion_tiles=0.75,
            inference_stride=None,
            patience=15,
        ),
    )
}
DEFAULT_CONFIGURATION = "lesionforge"


def config_entries(config: GeneratorConfig) -> dict[str, Any]:
    """What the card of a generator holds of its settings; `config_of_card` reads it back."""
    return {"card_version": CARD_VERSION, "config": asdict(config)}


def config_of_card(card: dict[str, Any], path: Path) -> GeneratorConfig:
    """The settings in the card of a generator, which was read from `path`.

    Raises InputError when the card is of another version, lacks a setting or has one that this version does not know, or when
    a setting is of another type, beyond its limits or at odds with another.
    """
    settings = card.get("config")
    known = {field.name for field in fields(GeneratorConfig)}
    if card.get("card_version") != CARD_VERSION or not isinstance(settings, dict) or set(settings) != known:
        raise InputError(
            f"{path.parent}: its card is of version {card.get('card_version')}, not {CARD_VERSION} as this lesionforge writes; "
            "train the generator again"
        )
    return settings_of(GeneratorConfig, settings, f"{path}: config")

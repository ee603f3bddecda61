"""The folder of one scan, as `prepare` and `synthesize` write it: real and synthetic scans look alike to every later stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lesionforge.errors import InputError
from lesionforge.images.deform import read_displacement
from lesionforge.images.files import read_image, read_mask, read_volume
from lesionforge.images.geometry import same_grid
from lesionforge.images.names import ALWAYS, FURTHER, find_image, find_images
from lesionforge.images.resample import world_matrix

# The tissues of a prepared scan.
CSF, GM, WM = 1, 2, 3
ROUGH_TEMPLATE_TO_T1W = "from-MNI152_to-T1w_mode-image_desc-rough_xfm.nii.gz"


def to_t1w_name(contrast: str) -> str:
    """The end of the name of the file with the transform of a contrast to the T1w."""
    return f"from-{contrast}_to-T1w_mode-image_xfm.mat"


def native_brain_mask_name(contrast: str) -> str:
    """The end of the name of the file with the brain mask on the grid of a contrast as given."""
    return f"space-{contrast}_res-native_desc-brain_mask.nii.gz"


@dataclass(frozen=True)
class Prepared:
    """Paths of one prepared scan; everything lies on its working grid. `lesion` is None without a lesion mask.

    `further` holds the contrasts besides T1w and FLAIR, by name.
    """

    folder: Path
    scan_id: str
    grid: str
    t1w: Path
    flair: Path
    brain: Path
    tissues: Path
    lesion: Path | None
    further: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path) -> Prepared:
        """Find the files of a folder named by its scan (`sub-01_ses-1`); raises InputError when one is missing."""
        folder = Path(folder).absolute()
        scan_id = folder.name
        found = sorted(folder.glob(f"{scan_id}_space-T1w_res-*mm_desc-preproc_T1w.nii.gz"))
        if len(found) != 1:
            raise InputError(
                f"{folder}: is no prepared scan (no {scan_id}_*_desc-preproc_T1w.nii.gz in it); run lesionforge prepare"
            )
        grid = found[0].name.removeprefix(f"{scan_id}_").removesuffix("_desc-preproc_T1w.nii.gz")
        paths = {
            "t1w": found[0],
            "flair": folder / f"{scan_id}_{grid}_desc-preproc_FLAIR.nii.gz",
            "brain": folder / f"{scan_id}_{grid}_desc-brain_mask.nii.gz",
            "tissues": folder / f"{scan_id}_{grid}_dseg.nii.gz",
        }
        for path in paths.values():
            if not path.is_file():
                raise InputError(f"{path}: no such file; run lesionforge prepare for {scan_id} again")
        lesion = folder / f"{scan_id}_{grid}_label-lesion_mask.nii.gz"
        further = {name: folder / f"{scan_id}_{grid}_desc-preproc_{name}.nii.gz" for name in FURTHER}
        return cls(
            folder=folder,
            scan_id=scan_id,
            grid=grid,
            lesion=lesion if lesion.is_file() else None,
            further={name: path for name, path in further.items() if path.is_file()},
            **paths,
        )

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The names of its contrasts, in the order of CONTRASTS."""
        return tuple(self.images)

    @property
    def images(self) -> dict[str, Path]:
        """The paths of its contrasts by name, in the order of CONTRASTS."""
        return {"T1w": self.t1w, "FLAIR": self.flair} | self.further

    def refuse_lacking(self, contrasts: Sequence[str]) -> None:
        """Raise InputError, which names the folder, when one of these contrasts is not there."""
        refuse_lacking(contrasts, self.contrasts, str(self.folder))

    def given_to_t1w(self, space: str) -> np.ndarray:
        """The 4 x 4 RAS matrix from points of a contrast as given to points of the T1w and the working grid."""
        return np.eye(4) if space == "T1w" else np.linalg.inv(world_matrix(find_image(self.folder, to_t1w_name(space))))

    def way_to_template(self) -> Callable[[np.ndarray], np.ndarray]:
        """What takes points [n, 3] of the T1w (RAS, mm) to points of the template, by the rough registration of `prepare`.

        To NaN in the folder of a synthetic scan, which has no registration. Raises InputError as `read_displacement` does.
        """
        found = find_images(self.folder, ROUGH_TEMPLATE_TO_T1W)
        return read_displacement(found[0]) if found else lambda points: np.full(points.shape, np.nan)

    def unmarked(self) -> Prepared:
        """The same folder as if the scan had no lesion mask."""
        return replace(self, lesion=None)

    def read(self) -> Scan:
        """Read all volumes, annotated lesions as white matter.

        Raises InputError when they do not lie on one grid, and when a contrast has NaN or infinite values in the brain.
        """
        t1w, affine = read_volume(self.t1w)
        for path in (self.flair, *self.further.values(), self.brain, self.tissues, self.lesion):
            if path is not None:
                other = read_image(path)
                if not same_grid(other.shape, other.affine, t1w.shape, affine):
                    raise InputError(f"{path}: does not lie on the grid of {self.t1w.name}; run lesionforge prepare again")
        tissues = read_volume(self.tissues)[0].astype(np.uint8)
        lesion = read_mask(self.lesion)[0] if self.lesion else np.zeros(t1w.shape, bool)
        tissues[lesion & (tissues > 0)] = WM
        brain = read_mask(self.brain)[0]
        flair = read_volume(self.flair)[0]
        further = {name: read_volume(path)[0] for name, path in self.further.items()}
        paths = (self.t1w, self.flair, *self.further.values())
        for path, image in zip(paths, (t1w, flair, *further.values()), strict=True):
            if not np.isfinite(image[brain]).all():
                raise InputError(f"{path}: has voxels in the brain that are no finite numbers; run lesionforge prepare again")
        return Scan(
            t1w=t1w,
            flair=flair,
            brain=brain,
            tissues=tissues,
            lesion=lesion,
            affine=affine,
            further=further,
            where=str(self.folder),
        )


@dataclass
class Scan:
    """One scan's volumes [x, y, z] on its working grid.

    `t1w` and `flair` are float32, normalised (mean 0, standard deviation 1 in the brain, 0 outside), and so are the `further`
    contrasts, by name; `brain` and `lesion` are bool; `tissues` is uint8 with 0 background, 1 CSF, 2 GM, 3 WM. `where` names
    the scan in errors.
    """

    t1w: np.ndarray
    flair: np.ndarray
    brain: np.ndarray
    tissues: np.ndarray
    lesion: np.ndarray
    affine: np.ndarray
    further: dict[str, np.ndarray] = field(default_factory=dict)
    where: str = "the scan"

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The names of its contrasts, in the order of CONTRASTS."""
        return (*ALWAYS, *self.further)

    def images(self, contrasts: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The volumes of these contrasts by name, in their order; all of them by default.

        Raises InputError when the scan lacks one.
        """
        wanted = self.contrasts if contrasts is None else contrasts
        refuse_lacking(wanted, self.contrasts, self.where)
        held = {"T1w": self.t1w, "FLAIR": self.flair} | self.further
        return {name: held[name] for name in wanted}


def refuse_lacking(wanted: Sequence[str], held: Sequence[str], where: str) -> None:
    """Raise InputError when a wanted contrast is not among those that a folder or scan holds; `where` names it."""
    lacking = [name for name in wanted if name not in held]
    if lacking:
        raise InputError(
            f"{where}: has {', '.join(held)} but no {' and no '.join(lacking)}; "
            "prepare the scan with that too, or leave it out of all scans"
        )

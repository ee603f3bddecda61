"""Tables of lesions: the lesions of one scan, and the scans of a cohort."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images import PLACES, label_lesions, places, read_json, resample, scan_labels, voxel_volume_mm3
from lesionforge.images.geometry import box_around
from lesionforge.images.names import CONTRASTS, FURTHER
from lesionforge.nets.settings import Within, settings_of

if TYPE_CHECKING:
    import pandas as pd

    from lesionforge.images import Grid, Scan

AXES = ("x", "y", "z")
NATIVE = "volume_native_"


def native_volume(contrast: str, unit: str = "mm3") -> str:
    """The column of volumes on the grid of a contrast as given: of lesions in mm3, of a scan in ml."""
    return f"{NATIVE}{contrast.lower()}_{unit}"


SCAN_COLUMNS = {
    "id": "scan",
    "subject": "subject label, without sub-",
    "session": "session label without ses-; n/a without sessions",
    "model": "name of the model's folder; in an experiment its arm, fold and seed",
    "lesion_count": "number of lesions on the working grid: 26-connected components",
    "volume_ml": "volume of all lesions on the working grid in millilitres",
    **{f"lesions_{place}": f"number of {place} lesions" for place in PLACES},
    **{f"volume_{place}_ml": f"volume of the {place} lesions on the working grid in millilitres" for place in PLACES},
    "largest_lesion_mm3": "volume of the largest lesion on the working grid in cubic millimetres; 0 without lesions",
    **{
        native_volume(name, "ml"): f"volume of all lesions on the grid of the {name} as given, in millilitres"
        for name in CONTRASTS
    },
    "lesion_threshold": "a voxel is lesion from this probability on: as given, the model's, or the scan's own",
    "min_volume_mm3": "lesions of this volume in cubic millimetres or less were dropped, before any growth",
    "growth_mm": "how far lesions then grew into what is hyperintense around them, in mm; 0: not at all",
    "cnn1_threshold": "the second network saw voxels to which the first gave more than this probability",
    "mirrored": "whether probabilities are the mean of those of the scan and of the scan with left and right changed",
    "candidate_depth_mm": "nothing nearer than this to the surface of the brain was looked at, in mm",
    "candidate_flair_z": "the first network saw voxels whose FLAIR lies above this many standard deviations in the brain",
    "voxel_mm": "voxel size of the working grid in mm",
    "model_checksum": "first eight digits of the SHA-256 of each network's file",
}


# What a user sets when segmenting, so that a scan may be in a table once with each.
THRESHOLDS = ("lesion_threshold", "min_volume_mm3", "growth_mm")
Volume = Annotated[float, Within(0, 1e9)]
Count = Annotated[int, Within(0, 10**9)]


@dataclass(frozen=True)
class ScanSummary:
    """What the table of the cohort takes from a `desc-segment.json`; a synthetic scan has no native volumes."""

    id: str
    model: str
    model_checksums: dict[str, str]
    lesion_count: Count
    volume_ml: Volume
    lesions_infratentorial: Count
    volume_infratentorial_ml: Volume
    lesions_periventricular: Count
    volume_periventricular_ml: Volume
    lesions_juxtacortical: Count
    volume_juxtacortical_ml: Volume
    lesions_deep: Count
    volume_deep_ml: Volume
    largest_lesion_mm3: Volume
    lesion_threshold: Annotated[float, Within(0, 1, above=True)]
    min_volume_mm3: Volume
    cnn1_threshold: Annotated[float, Within(0, 1)]
    candidate_flair_z: float
    voxel_mm: Annotated[float, Within(0, 100, above=True)]
    growth_mm: Annotated[float, Within(0, 100)] = 0.0
    candidate_depth_mm: Annotated[float, Within(0, 100)] = 0.0
    mirrored: bool = False
    volume_native_t1w_ml: Volume | None = None
    volume_native_flair_ml: Volume | None = None
    volume_native_t2w_ml: Volume | None = None
    volume_native_pdw_ml: Volume | None = None

    def __post_init__(self) -> None:
        """Raise ValueError when the id is none of a scan."""
        scan_labels(self.id)


def lesion_columns(contrasts: Sequence[str]) -> dict[str, str]:
    """The columns of the table of one scan with these contrasts, each with its description."""
    return {
        "lesion": "number of the lesion in this scan, largest first, and its value in the label-lesion_dseg of every grid",
        "place": "infratentorial, periventricular (within 3 mm of a ventricle), juxtacortical (touches grey matter), else deep "
        "(white matter)",
        "volume_mm3": "volume on the working grid in cubic millimetres",
        **{
            native_volume(name): f"volume on the grid of the {name} as given, in cubic millimetres; 0 for one too small for it"
            for name in contrasts
        },
        **{f"{axis}_mm": f"centroid in the space of the T1w scan, RAS {axis} in mm" for axis in AXES},
        **{
            f"{axis}_mni152_mm": f"centroid in template space (ICBM 152 2009a), RAS {axis} in mm, by a rough registration"
            for axis in AXES
        },
    }


def number_lesions(mask: np.ndarray) -> np.ndarray:
    """The lesions of a bool mask [x, y, z], numbered from 1, the largest first; int32, 0 elsewhere."""
    labels, count = label_lesions(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    rank = np.zeros(count + 1, np.int32)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    return rank[labels]


def numbers_on(numbers: np.ndarray, affine: np.ndarray, onto: Grid, to_source: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The numbers of the lesions on another grid; int32, 0 outside `mask`, the bool mask that lies there.

    `numbers` [x, y, z] lie on the grid with `affine`, `to_source` is the 4 x 4 RAS matrix from points of the new grid to
    points of theirs. A voxel of the mask has lesion around its place, and so its nearest voxel is lesion or touches one
    (26 neighbours); between two it takes the smaller.
    """
    box, box_affine = box_around(numbers > 0, affine, float(np.linalg.norm(affine[:3, :3], axis=0).max()))
    wide = np.where(numbers[box] > 0, numbers[box], ndimage.maximum_filter(numbers[box], size=3))
    return np.where(mask, resample(wide, box_affine, onto, to_source, nearest=True), 0).astype(np.int32)


def volumes_mm3(numbers: np.ndarray, count: int, affine: np.ndarray) -> np.ndarray:
    """The volume in mm³ of each of the lesions 1 to `count` on a grid; 0 for one that has no voxel there."""
    return np.bincount(numbers.ravel(), minlength=count + 1)[1:] * voxel_volume_mm3(affine)


def lesion_table(numbers: np.ndarray, scan: Scan, in_template: Callable[[np.ndarray], np.ndarray]) -> pd.DataFrame:
    """One row per numbered lesion [x, y, z] of a scan: what `lesion_columns` says of its working grid; empty without lesions.

    `in_template` takes points [n, 3] of the scan's space (RAS, mm) to the template's.
    """
    import pandas as pd

    count = int(numbers.max(initial=0))
    voxels = np.argwhere(numbers)
    of = numbers[tuple(voxels.T)]
    sizes = np.bincount(of, minlength=count + 1)[1:]
    centres = np.stack([np.bincount(of, axis, count + 1)[1:] / sizes for axis in voxels.T.astype(float)], axis=-1)
    where = places(numbers, scan.tissues, scan.brain, float(np.cbrt(voxel_volume_mm3(scan.affine)))) if count else {}
    table = pd.DataFrame({"lesion": np.arange(1, count + 1), "place": [where[number] for number in range(1, count + 1)]})
    table["volume_mm3"] = sizes * voxel_volume_mm3(scan.affine)
    centres = nib.affines.apply_affine(scan.affine, centres)
    table[[f"{axis}_mm" for axis in AXES]] = centres
    table[[f"{axis}_mni152_mm" for axis in AXES]] = in_template(centres)
    return table


def totals(table: pd.DataFrame) -> dict[str, Any]:
    """What the lesions of one scan come to: counts and volumes of SCAN_COLUMNS, volumes on each native grid there is."""
    found: dict[str, Any] = {
        "lesion_count": len(table),
        "volume_ml": float(table["volume_mm3"].sum() / 1000),
        "largest_lesion_mm3": float(table["volume_mm3"].max()) if len(table) else 0.0,
    }
    for place in PLACES:
        there = table[table["place"] == place]
        found |= {f"lesions_{place}": len(there), f"volume_{place}_ml": float(there["volume_mm3"].sum() / 1000)}
    natives = [name for name in map(str, table) if name.startswith(NATIVE)]
    return found | {name.replace("_mm3", "_ml"): float(table[name].sum() / 1000) for name in natives}


def scans_table(summaries: list[Path]) -> pd.DataFrame:
    """One row per `desc-segment.json` with the columns of SCAN_COLUMNS, those of T2w and PDw where a scan has them, scan by scan,
    the real arm first.

    A scan may be there once with each set of THRESHOLDS, as long as it is of one model. Raises InputError when a file is no
    such summary, or two are of the same scan, model and thresholds.
    """
    import pandas as pd

    first: dict[tuple[Any, ...], Path] = {}
    rows = []
    for path in summaries:
        summary = settings_of(ScanSummary, read_json(path), str(path), "write it again with lesionforge segment")
        checksums = "-".join(checksum[:8] for _, checksum in sorted(summary.model_checksums.items()))
        key = (summary.id, summary.model, checksums, *(getattr(summary, name) for name in THRESHOLDS))
        if key in first:
            raise InputError(f"{path}: is of the same scan, model and thresholds as {first[key]}; give each once")
        first[key] = path
        subject, session = scan_labels(summary.id)
        rows.append(asdict(summary) | {"subject": subject, "session": session or "n/a", "model_checksum": checksums})
    table = pd.DataFrame(rows).round(6)
    further = table.filter([native_volume(name, "ml") for name in FURTHER])
    table = table.drop(columns=further.columns[further.isna().all()])
    return table.assign(later=~table["model"].str.match("real(_|$)")).sort_values(
        ["id", "later", "model", "model_checksum", *THRESHOLDS], ignore_index=True
    )

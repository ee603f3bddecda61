"""The one definition of a lesion: a 26-connected component of the mask, of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionforge.images.geometry import voxel_volume_mm3

if TYPE_CHECKING:
    import pandas as pd

LESION_TABLE_COLUMNS = {
    "lesion": "number of the lesion in this scan, largest first",
    "volume_mm3": "volume in cubic millimetres",
    "x_mm": "centroid, RAS x in mm",
    "y_mm": "centroid, RAS y in mm",
    "z_mm": "centroid, RAS z in mm",
}


def label_lesions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the lesions of a bool mask [x, y, z]: (int array of labels from 1, count)."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return labels, int(count)


def lesion_table(mask: np.ndarray, affine: np.ndarray) -> pd.DataFrame:
    """One row per lesion, largest first, with the columns of LESION_TABLE_COLUMNS; empty for an empty mask."""
    import pandas as pd

    labels, count = label_lesions(mask)
    numbers = np.arange(1, count + 1)
    volumes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * voxel_volume_mm3(affine)
    centres = np.array(ndimage.center_of_mass(mask, labels, numbers)).reshape(count, 3)
    order = np.argsort(-volumes, kind="stable")
    centres_mm = nib.affines.apply_affine(affine, centres[order])
    return pd.DataFrame(
        {
            "lesion": numbers,
            "volume_mm3": volumes[order],
            "x_mm": centres_mm[:, 0],
            "y_mm": centres_mm[:, 1],
            "z_mm": centres_mm[:, 2],
        }
    )

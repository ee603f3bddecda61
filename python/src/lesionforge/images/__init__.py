"""Reading, writing, geometry, names and lesions: what every stage shares."""

from lesionforge.images.files import (
    made_folder,
    naming,
    new_folder,
    read_image,
    read_json,
    read_mask,
    read_mask_on,
    read_record,
    read_tsv,
    read_volume,
    refuse_loss,
    refuse_overwritten_input,
    scratch_folder,
    whole_files,
    write_json,
    write_mask,
    write_tsv,
    write_volume,
)
from lesionforge.images.geometry import Grid, from_ants, same_grid, to_ants, voxel_volume_mm3, working_grid
from lesionforge.images.intensity import zscore
from lesionforge.images.lesions import label_lesions, least_voxels_above, lesions_touching, most_probable
from lesionforge.images.made import read_on_grid, write_made_scan
from lesionforge.images.names import CONTRASTS, derivative, find_image, find_images, grid_entities, library_id, scan_labels
from lesionforge.images.places import PLACES, places
from lesionforge.images.prepared import Prepared, Scan, refuse_lacking
from lesionforge.images.resample import resample, world_matrix
from lesionforge.images.scratch import ants_scratch

__all__ = [
    "CONTRASTS",
    "PLACES",
    "Grid",
    "Prepared",
    "Scan",
    "ants_scratch",
    "derivative",
    "find_image",
    "find_images",
    "from_ants",
    "grid_entities",
    "label_lesions",
    "least_voxels_above",
    "lesions_touching",
    "library_id",
    "made_folder",
    "most_probable",
    "naming",
    "new_folder",
    "places",
    "read_image",
    "read_json",
    "read_mask",
    "read_mask_on",
    "read_on_grid",
    "read_record",
    "read_tsv",
    "read_volume",
    "refuse_lacking",
    "refuse_loss",
    "refuse_overwritten_input",
    "resample",
    "same_grid",
    "scan_labels",
    "scratch_folder",
    "to_ants",
    "voxel_volume_mm3",
    "whole_files",
    "working_grid",
    "world_matrix",
    "write_json",
    "write_made_scan",
    "write_mask",
    "write_tsv",
    "write_volume",
    "zscore",
]

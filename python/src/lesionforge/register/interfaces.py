"""nipype interfaces of `register`: one SyN per subject, and pairs by composition or directly."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, SimpleInterface, isdefined, traits
from scipy import ndimage

from lesionforge.errors import InputError
from lesionforge.images import (
    Prepared,
    Scan,
    ants_path,
    ants_scratch,
    derivative,
    files_of_a_tool,
    label_lesions,
    lesions_touching,
    library_id,
    read_mask,
    resample,
    to_ants,
    write_json,
    write_volume,
)
from lesionforge.images.check import check_mask
from lesionforge.images.deform import FINE, affine_and_syn, displacement_field, folding_fraction
from lesionforge.images.geometry import box_around
from lesionforge.images.interfaces import FolderOutput, result_folder
from lesionforge.images.names import shown
from lesionforge.images.prepared import GM, WM
from lesionforge.images.template import load_template
from lesionforge.register.deformation import source_voxels, tissue_overlap, warp_tissues
from lesionforge.register.lesions import warp_lesions

TO_TEMPLATE = "from-T1w_to-MNI152_mode-image_xfm.h5"
FROM_TEMPLATE = "from-MNI152_to-T1w_mode-image_xfm.h5"
# White matter is hyperintense when its FLAIR exceeds the mean of grey matter by this many standard deviations.
HYPERINTENSE_STD = 1.1
# Registration runs at this voxel size, on the brain and a margin: seconds instead of minutes, and 7 MB per transform.
TEMPLATE_MM = 2
MARGIN_MM = 10
CANVAS_MARGIN_MM = 2
# What each interface always writes, and what all its files are called.
TEMPLATE_RECORD, PAIR_RECORD = "desc-register.json", "desc-pair.json"
TEMPLATE_FILES = files_of_a_tool(TEMPLATE_RECORD, TO_TEMPLATE, FROM_TEMPLATE)
PAIR_FILES = tuple(
    f"{kind}-*_{ending}"
    for kind in ("sub", "lib")
    for ending in (PAIR_RECORD, "space-*_label-lesion_dseg.nii.gz", "space-*_desc-preproc_*.nii.gz")
)


class ToTemplateInput(BaseInterfaceInputSpec):
    prepared = Directory(exists=True, mandatory=True, desc="prepared folder")
    out = Directory(mandatory=True)


class ToTemplate(SimpleInterface):
    """Register a prepared T1w to the template: affine, then SyN, at TEMPLATE_MM.

    Source: Avants et al. 2008, doi 10.1016/j.media.2007.06.004. Lesions are filled with the white matter's median
    first, so that they do not bend the anatomy.
    """

    input_spec = ToTemplateInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        prepared = Prepared.open(self.inputs.prepared)
        scan = prepared.read()
        template = load_template(TEMPLATE_MM)
        box, affine = box_around(template.brain, template.affine, MARGIN_MM)
        fixed = to_ants(template.t1w[box], affine)
        expected = np.stack([1 - template.brain, template.csf, template.gm, template.wm]).argmax(axis=0)[box]
        results = result_folder(self.inputs, prepared.scan_id, TEMPLATE_RECORD, TEMPLATE_FILES)
        with results as folder, ants_scratch(folder, prepared.scan_id) as outprefix:
            moving = to_ants(registration_image(scan), scan.affine)
            forward, inverse = affine_and_syn(fixed, moving, outprefix, FINE)
            for made, name in ((forward, TO_TEMPLATE), (inverse, FROM_TEMPLATE)):
                shutil.copyfile(made, folder / derivative(prepared.scan_id, name, extension=""))
            displacement = displacement_field(fixed, [forward], outprefix)
            moved = warp_tissues(scan.tissues, source_voxels(displacement, affine, scan.affine))
            figures = tissue_overlap(moved, expected) | {
                "folding_fraction": folding_fraction(displacement, affine, template.brain[box])
            }
            write_json(figures, folder / derivative(prepared.scan_id, TEMPLATE_RECORD, extension=""))
        self._results["out_folder"] = str(Path(self.inputs.out) / prepared.scan_id)
        return runtime


class PairInput(BaseInterfaceInputSpec):
    donor = Directory(exists=True, mandatory=True, desc="prepared folder of the donor")
    canvas = Directory(exists=True, mandatory=True, desc="prepared folder of the canvas")
    donor_transforms = Directory(exists=True, requires=["canvas_transforms"], desc="folder that ToTemplate wrote for the donor")
    canvas_transforms = Directory(exists=True, requires=["donor_transforms"], desc="folder that ToTemplate wrote for the canvas")
    out = Directory(mandatory=True)


class Pair(SimpleInterface):
    """Bring a donor's lesions and contrasts onto a canvas, in one interpolation, where the canvas has brain.

    With the transforms of both to the template these are composed; without them the donor is registered to the canvas
    directly, by the same recipe at the same voxel size.
    """

    input_spec = PairInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        donor, canvas = Prepared.open(self.inputs.donor), Prepared.open(self.inputs.canvas)
        donor_scan, canvas_scan = donor.read(), canvas.read()
        name = f"{donor.scan_id}_to_{canvas.scan_id}"
        space = space_entity(canvas)
        results = result_folder(self.inputs, name, PAIR_RECORD, PAIR_FILES)
        with results as folder, ants_scratch(folder, name) as outprefix:
            if self.inputs.donor_transforms:
                method = "composed"
                # antspyx applies the last transform of a list first: donor to template, then template to canvas.
                transforms = [
                    transform_of(canvas.scan_id, self.inputs.canvas_transforms, FROM_TEMPLATE),
                    transform_of(donor.scan_id, self.inputs.donor_transforms, TO_TEMPLATE),
                ]
            else:
                method = "pairwise"
                transforms = [donor_onto_canvas(donor_scan, canvas_scan, outprefix)]
            own = (donor_scan.lesion, donor_scan.tissues == GM, donor_scan.affine)
            lesions, source, figures = lesions_onto_canvas(*own, canvas_scan, transforms, outprefix)
            box, _ = canvas_box(canvas_scan)
            write_volume(lesions, canvas_scan.affine, folder / derivative(donor.scan_id, space, "label-lesion_dseg"))
            for suffix, image in donor_scan.images().items():
                warped = np.zeros(canvas_scan.t1w.shape, np.float32)
                warped[box] = ndimage.map_coordinates(image, source, order=1)
                write_volume(warped, canvas_scan.affine, folder / derivative(donor.scan_id, space, f"desc-preproc_{suffix}"))
            overlap = tissue_overlap(warp_tissues(donor_scan.tissues, source), canvas_scan.tissues[box])
            record = {"donor": donor.scan_id, "canvas": canvas.scan_id, "method": method}
            write_json(record | figures | overlap, folder / f"{name}_{PAIR_RECORD}")
        self._results["out_folder"] = str(Path(self.inputs.out) / name)
        return runtime


class LibraryPairInput(BaseInterfaceInputSpec):
    lesions = File(exists=True, mandatory=True, desc="lesion mask in template space")
    lesions_id = traits.Str(desc="id of the mask; by default as its file's name says")
    canvas = Directory(exists=True, mandatory=True, desc="prepared folder of the canvas")
    canvas_transforms = Directory(exists=True, mandatory=True, desc="folder that ToTemplate wrote for the canvas")
    out = Directory(mandatory=True)


class LibraryPair(SimpleInterface):
    """Bring a lesion mask in template space onto a canvas, in one interpolation, where the canvas has brain.

    The mask may lie on any grid: its world coordinates are the template's. Whether its lesions touch grey matter is read
    from the template's.
    """

    input_spec = LibraryPairInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        canvas = Prepared.open(self.inputs.canvas)
        scan = canvas.read()
        check_mask(self.inputs.lesions)
        lesion, lesion_affine = read_mask(self.inputs.lesions)
        donor = self.inputs.lesions_id if isdefined(self.inputs.lesions_id) else library_id(Path(self.inputs.lesions).name)
        if not re.fullmatch(r"lib-[A-Za-z0-9]+", donor):
            raise InputError(f"--lesions-id {shown(donor)} is none of lib- and letters and digits; give one such as lib-01")
        name = f"{donor}_to_{canvas.scan_id}"
        template = load_template(TEMPLATE_MM)
        grey = resample(template.gm, template.affine, (lesion.shape, lesion_affine)) > 0.5
        results = result_folder(self.inputs, name, PAIR_RECORD, PAIR_FILES)
        with results as folder, ants_scratch(folder, name) as outprefix:
            transforms = [transform_of(canvas.scan_id, self.inputs.canvas_transforms, FROM_TEMPLATE)]
            lesions, _, figures = lesions_onto_canvas(lesion, grey, lesion_affine, scan, transforms, outprefix)
            if not lesions.any():
                raise InputError(
                    f"{self.inputs.lesions}: none of its lesions lies in the brain of {canvas.scan_id}; "
                    "give a mask with lesions, in the space of MNI152"
                )
            write_volume(lesions, scan.affine, folder / derivative(donor, space_entity(canvas), "label-lesion_dseg"))
            record = {"donor": donor, "canvas": canvas.scan_id, "method": "library"}
            write_json(record | figures, folder / f"{name}_{PAIR_RECORD}")
        self._results["out_folder"] = str(Path(self.inputs.out) / name)
        return runtime


def transform_of(scan_id: str, folder: str | Path, name: str) -> str:
    """The path of a scan's transform, FROM_TEMPLATE or TO_TEMPLATE, in the folder that ToTemplate wrote for it.

    Raises InputError where the folder is of another scan.
    """
    path = Path(folder) / derivative(scan_id, name, extension="")
    if not path.is_file():
        raise InputError(f"{folder}: holds no {path.name}; give the folder that register wrote for {scan_id}")
    return ants_path(path)


def canvas_box(canvas: Scan) -> tuple[tuple[slice, ...], np.ndarray]:
    """The part of a canvas' grid that lesions are brought to: its brain and CANVAS_MARGIN_MM, as `box_around` gives it."""
    return box_around(canvas.brain, canvas.affine, CANVAS_MARGIN_MM)


def lesions_onto_canvas(
    lesion: np.ndarray, grey: np.ndarray, affine: np.ndarray, canvas: Scan, transforms: list[str], outprefix: str
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Bring the lesions of a bool mask onto a canvas, where it has brain, through a list of transforms.

    `grey` is the grey matter on the grid of `lesion`, whose affine is given. Returns the numbered lesions (uint16) on the
    canvas' grid, the places of the voxels of `canvas_box` in the mask [3, x, y, z], and the figures of a pair's JSON.
    """
    box, box_affine = canvas_box(canvas)
    displacement = displacement_field(to_ants(canvas.t1w[box], box_affine), transforms, outprefix)
    source = source_voxels(displacement, box_affine, affine)
    warped = np.zeros(canvas.t1w.shape, np.uint16)
    warped[box] = warp_lesions(lesion, source)
    numbers, count = label_lesions(lesion)
    figures = {
        "folding_fraction": folding_fraction(displacement, box_affine, canvas.brain[box]),
        "donor_lesions": count,
        "warped_lesions": label_lesions(warped > 0)[1],
        "lesions_touching_grey_matter": lesions_touching(numbers, grey),
    }
    return warped, source, figures


def space_entity(canvas: Prepared) -> str:
    """The BIDS entity of the space of a canvas: `space-sub01ses1`."""
    return f"space-{canvas.scan_id.replace('-', '').replace('_', '')}"


def donor_onto_canvas(donor: Scan, canvas: Scan, outprefix: str) -> str:
    """Register a donor's T1w to a canvas', affine then SyN, at TEMPLATE_MM; the path of the composite transform."""
    import ants

    box, affine = box_around(canvas.brain, canvas.affine, MARGIN_MM)
    fixed = to_ants(registration_image(canvas)[box], affine)
    coarse = ants.resample_image(fixed, (TEMPLATE_MM,) * 3, use_voxels=False, interp_type=0)
    return affine_and_syn(coarse, to_ants(registration_image(donor), donor.affine), outprefix, FINE)[0]


def registration_image(scan: Scan) -> np.ndarray:
    """The T1w [x, y, z] as registration needs it: lesions at the median of white matter, positive in the brain, 0 outside.

    Lesions are the annotated ones and what looks like one in white matter. ITK centres images by their mass, which a
    normalised scan with its mean of zero does not have.
    """
    lesions = scan.lesion | dark_white_matter(scan)
    healthy_wm = scan.t1w[(scan.tissues == WM) & ~lesions]
    filled = np.where(lesions, np.median(healthy_wm), scan.t1w) if healthy_wm.size else scan.t1w
    lowest = filled[scan.brain].min(initial=0)
    return np.where(scan.brain, filled - lowest, 0)


def dark_white_matter(scan: Scan) -> np.ndarray:
    """Bool [x, y, z]: white matter that looks like a lesion, darker than half-way to grey matter in T1w, hyperintense in FLAIR.

    `prepare` counts such voxels as white matter, but their T1w would pull grey matter or a ventricle towards them.
    """
    white, grey = scan.tissues == WM, scan.tissues == GM
    if not white.any() or not grey.any():
        return np.zeros(white.shape, bool)
    half_way = (np.median(scan.t1w[white]) + np.median(scan.t1w[grey])) / 2
    bright = scan.flair[grey].mean() + HYPERINTENSE_STD * scan.flair[grey].std()
    dark: np.ndarray = white & (scan.t1w < half_way) & (scan.flair > bright)
    return dark

"""nipype interfaces of `register`: one SyN per subject, pairs by composition."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, SimpleInterface

from lesionforge.images import (
    Prepared,
    Scan,
    ants_scratch,
    derivative,
    find_image,
    from_ants,
    new_folder,
    to_ants,
    write_json,
    write_volume,
)
from lesionforge.images.deform import affine_and_syn
from lesionforge.images.geometry import RAS_TO_LPS
from lesionforge.images.interfaces import FolderOutput
from lesionforge.images.template import load_template
from lesionforge.register.deformation import folding_fraction, tissue_overlap

if TYPE_CHECKING:
    import ants

TO_TEMPLATE = "from-T1w_to-MNI152_mode-image_xfm.h5"
FROM_TEMPLATE = "from-MNI152_to-T1w_mode-image_xfm.h5"
WM = 3
# Registration runs at this voxel size: seconds instead of a minute, and 10 MB instead of 80 MB per transform.
TEMPLATE_MM = 2


class ToTemplateInput(BaseInterfaceInputSpec):
    prepared = Directory(exists=True, mandatory=True, desc="prepared folder")
    out = Directory(mandatory=True)


class ToTemplate(SimpleInterface):
    """Register a prepared T1w to the template: affine, then SyN, at TEMPLATE_MM.

    Source: Avants et al. 2008, doi 10.1016/j.media.2007.06.004. Known lesions are filled with the white matter's
    median first, so that they do not bend the anatomy.
    """

    input_spec = ToTemplateInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        import ants

        prepared = Prepared.open(self.inputs.prepared)
        scan = prepared.read()
        template = load_template(TEMPLATE_MM)
        fixed = to_ants(template.t1w, template.affine)
        with new_folder(Path(self.inputs.out) / prepared.scan_id) as folder, ants_scratch(folder) as outprefix:
            moving = to_ants(registration_image(scan), scan.affine)
            forward, inverse = affine_and_syn(fixed, moving, outprefix)
            for made, name in ((forward, TO_TEMPLATE), (inverse, FROM_TEMPLATE)):
                shutil.copyfile(made, folder / derivative(prepared.scan_id, name, extension=""))
            tissues = to_ants(scan.tissues, scan.affine)
            moved = from_ants(ants.apply_transforms(fixed, tissues, [forward], interpolator="genericLabel"))[0]
            expected = np.stack([1 - template.brain, template.csf, template.gm, template.wm]).argmax(axis=0)
            displacement = displacement_field(fixed, [forward], outprefix)
            figures = tissue_overlap(moved.round(), expected) | {
                "folding_fraction": folding_fraction(displacement, template.affine, template.brain)
            }
            write_json(figures, folder / derivative(prepared.scan_id, "desc-register", extension=".json"))
        self._results["out_folder"] = str(Path(self.inputs.out) / prepared.scan_id)
        return runtime


class PairInput(BaseInterfaceInputSpec):
    donor = Directory(exists=True, mandatory=True, desc="prepared folder of the donor")
    canvas = Directory(exists=True, mandatory=True, desc="prepared folder of the canvas")
    donor_transforms = Directory(exists=True, mandatory=True, desc="folder that ToTemplate wrote for the donor")
    canvas_transforms = Directory(exists=True, mandatory=True, desc="folder that ToTemplate wrote for the canvas")
    out = Directory(mandatory=True)


class Pair(SimpleInterface):
    """Bring a donor's lesions and FLAIR onto a canvas through the template, in one interpolation of the composed transforms.

    The lesion mask is interpolated linearly as a probability: nearest neighbour would split and merge lesions.
    """

    input_spec = PairInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        import ants

        donor, canvas = Prepared.open(self.inputs.donor), Prepared.open(self.inputs.canvas)
        donor_scan, canvas_scan = donor.read(), canvas.read()
        # antspyx applies the last transform of a list first: donor to template, then template to canvas.
        transforms: list[str] = [
            str(find_image(self.inputs.canvas_transforms, FROM_TEMPLATE)),
            str(find_image(self.inputs.donor_transforms, TO_TEMPLATE)),
        ]
        grid = to_ants(canvas_scan.t1w, canvas_scan.affine)

        def moved(data: np.ndarray, interpolator: str = "linear") -> np.ndarray:
            image = to_ants(data, donor_scan.affine)
            return from_ants(ants.apply_transforms(grid, image, transforms, interpolator=interpolator))[0]

        name = f"{donor.scan_id}_to_{canvas.scan_id}"
        space = f"space-{canvas.scan_id.replace('-', '').replace('_', '')}"
        with new_folder(Path(self.inputs.out) / name) as folder, ants_scratch(folder) as outprefix:
            for data, entity in ((donor_scan.lesion, "label-lesion_probseg"), (donor_scan.flair, "desc-preproc_FLAIR")):
                write_volume(moved(data), canvas_scan.affine, folder / derivative(donor.scan_id, space, entity))
            displacement = displacement_field(grid, transforms, outprefix)
            figures: dict[str, Any] = tissue_overlap(moved(donor_scan.tissues, "genericLabel").round(), canvas_scan.tissues)
            figures["folding_fraction"] = folding_fraction(displacement, canvas_scan.affine, canvas_scan.brain)
            figures |= {"donor": donor.scan_id, "canvas": canvas.scan_id}
            write_json(figures, folder / f"{name}_desc-pair.json")
        self._results["out_folder"] = str(Path(self.inputs.out) / name)
        return runtime


def registration_image(scan: Scan) -> np.ndarray:
    """The T1w [x, y, z] as registration needs it: known lesions at the median of white matter, positive in the brain, 0 outside.

    ITK centres images by their mass, which a normalised scan with its mean of zero does not have.
    """
    healthy_wm = scan.t1w[(scan.tissues == WM) & ~scan.lesion]
    filled = np.where(scan.lesion, np.median(healthy_wm), scan.t1w) if healthy_wm.size else scan.t1w
    lowest = filled[scan.brain].min(initial=0)
    return np.where(scan.brain, filled - lowest, 0)


def displacement_field(grid: ants.ANTsImage, transforms: list[Any], outprefix: str) -> np.ndarray:
    """The displacement in mm along the RAS axes, [x, y, z, 3], that a list of transforms makes on a grid."""
    import ants

    path = ants.apply_transforms(grid, grid, transforms, compose=outprefix + "composed_")
    field = np.asanyarray(nib.nifti1.Nifti1Image.from_filename(path).dataobj, dtype=np.float32).squeeze()
    return field @ RAS_TO_LPS.astype(np.float32)

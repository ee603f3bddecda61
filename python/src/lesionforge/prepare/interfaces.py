"""nipype interfaces of `prepare`: files in, one folder of files out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, SimpleInterface, traits

from lesionforge.errors import InputError
from lesionforge.images import (
    ants_scratch,
    derivative,
    find_image,
    from_ants,
    grid_entities,
    new_folder,
    read_image,
    read_mask,
    read_volume,
    same_grid,
    to_ants,
    voxel_volume_mm3,
    working_grid,
    write_json,
    write_mask,
    write_volume,
)
from lesionforge.images.interfaces import FolderOutput
from lesionforge.images.template import load_template
from lesionforge.prepare import align, strip, tissues

STRIPPED = "stripped"
MIN_BRAIN_ML = 500
TEMPLATE_TO_T1W = ("from-MNI152_to-T1w_mode-image_desc-rough_xfm", ".h5")
FLAIR_TO_T1W = ("from-FLAIR_to-T1w_mode-image_xfm", ".mat")


class StripInput(BaseInterfaceInputSpec):
    scan_id = traits.Str(mandatory=True)
    t1w = File(exists=True, mandatory=True)
    brain_mask = traits.Either(File(exists=True), traits.Enum(STRIPPED), desc="a mask on the T1w grid, or 'stripped'")
    voxel_mm = traits.Float(1.0, usedefault=True)
    out = Directory(mandatory=True)


class Strip(SimpleInterface):
    """Brain mask on the working grid and the rough transform from the template, from a T1w."""

    input_spec = StripInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        inputs = self.inputs
        data, affine = _read_finite(inputs.t1w)
        shape, grid_affine = working_grid(data.shape, affine, inputs.voxel_mm)
        native_mask = self._native_mask(data, affine)
        with new_folder(Path(inputs.out) / inputs.scan_id) as folder, ants_scratch(folder) as outprefix:
            coarse_grid = working_grid(data.shape, affine, strip.COARSE_MM)
            coarse_affine = coarse_grid[1]
            coarse = strip.coarse_without_bias(align.resample(data, affine, coarse_grid), coarse_affine)
            if native_mask is None:
                rough = strip.rough_mask(coarse, coarse_affine)
            else:
                rough = align.resample(native_mask, affine, coarse_grid) >= 0.5
            self._refuse_small_brain(rough, coarse_affine)
            transform = strip.template_onto(to_ants(coarse * rough, coarse_affine), outprefix)
            if native_mask is None:
                brain = strip.template_mask(to_ants(np.zeros(shape, np.float32), grid_affine), transform)
            else:
                brain = align.resample(native_mask, affine, (shape, grid_affine)) >= 0.5
            self._refuse_small_brain(brain, grid_affine)
            name = derivative(inputs.scan_id, grid_entities(inputs.voxel_mm), "desc-brain_mask")
            write_mask(brain, grid_affine, folder / name, "brain, on the working grid")
            shutil.copyfile(transform, folder / derivative(inputs.scan_id, TEMPLATE_TO_T1W[0], extension=TEMPLATE_TO_T1W[1]))
        self._results["out_folder"] = str(Path(inputs.out) / inputs.scan_id)
        return runtime

    def _refuse_small_brain(self, brain: np.ndarray, affine: np.ndarray) -> None:
        volume_ml = float(brain.sum()) * voxel_volume_mm3(affine) / 1000
        if volume_ml < MIN_BRAIN_ML:
            raise InputError(
                f"{self.inputs.t1w}: only {volume_ml:.0f} ml of brain were found; "
                "check that it is a T1w of a whole head, or give a brain_mask"
            )

    def _native_mask(self, data: np.ndarray, affine: np.ndarray) -> np.ndarray | None:
        given = self.inputs.brain_mask
        if not given:
            return None
        if given == STRIPPED:
            return strip.brain_of_stripped(data)
        mask, mask_affine = read_mask(given)
        if not same_grid(mask.shape, mask_affine, data.shape, affine):
            raise InputError(f"{given}: does not lie on the grid of {self.inputs.t1w}; resample the brain mask to the T1w")
        return mask


class AlignInput(BaseInterfaceInputSpec):
    scan_id = traits.Str(mandatory=True)
    t1w = File(exists=True, mandatory=True)
    flair = File(exists=True, mandatory=True)
    lesion_mask = File(exists=True)
    stripped = Directory(exists=True, mandatory=True, desc="folder that Strip wrote")
    out = Directory(mandatory=True)


class Align(SimpleInterface):
    """T1w, FLAIR and lesion mask on the working grid, each interpolated once, without bias field.

    Brain masks on the native grids carry the headers of the scans as given.
    """

    input_spec = AlignInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        inputs = self.inputs
        brain_path = find_image(inputs.stripped, "desc-brain_mask.nii.gz")
        brain, grid_affine = read_mask(brain_path)
        entities = _grid_entities_of(brain_path, inputs.scan_id)
        grid = (brain.shape, grid_affine)
        t1w_native, t1w_affine = _read_finite(inputs.t1w)
        flair_native, flair_affine = _read_finite(inputs.flair)

        def name(*parts: str, extension: str = ".nii.gz") -> str:
            return derivative(inputs.scan_id, *parts, extension=extension)

        with new_folder(Path(inputs.out) / inputs.scan_id) as folder, ants_scratch(folder) as outprefix:
            t1w = align.resample(t1w_native, t1w_affine, grid)
            fixed, moving = to_ants(t1w, grid_affine), to_ants(flair_native, flair_affine)
            rigid = align.rigid_onto(fixed, moving, outprefix)
            share_grid = same_grid(t1w_native.shape, t1w_affine, flair_native.shape, flair_affine)
            if share_grid and not align.improves_alignment(fixed, moving, rigid):
                align.write_identity(rigid)
            flair = align.resample(flair_native, flair_affine, grid, rigid)
            for image, suffix in ((t1w, "T1w"), (flair, "FLAIR")):
                corrected = align.without_bias(image, brain, grid_affine)
                write_volume(corrected, grid_affine, folder / name(entities, f"desc-biascorr_{suffix}"))
            shutil.copyfile(rigid, folder / name(FLAIR_TO_T1W[0], extension=FLAIR_TO_T1W[1]))
            natives = (
                ("T1w", inputs.t1w, t1w_native, t1w_affine, None),
                ("FLAIR", inputs.flair, flair_native, flair_affine, rigid),
            )
            for space, path, native, affine, transform in natives:
                mask = align.resample(brain, grid_affine, (native.shape, affine), transform, inverse=transform is not None) >= 0.5
                target = folder / name(f"space-{space}_res-native", "desc-brain_mask")
                write_mask(mask, affine, target, f"brain, on the grid of the {space} as given", like=read_image(path))
            if inputs.lesion_mask:
                lesion, lesion_affine = read_mask(inputs.lesion_mask)
                on_t1w = same_grid(lesion.shape, lesion_affine, t1w_native.shape, t1w_affine)
                if not on_t1w and not same_grid(lesion.shape, lesion_affine, flair_native.shape, flair_affine):
                    raise InputError(
                        f"{inputs.lesion_mask}: lies neither on the grid of the T1w nor of the FLAIR; resample it to one of them"
                    )
                moved = align.resample(lesion, lesion_affine, grid, None if on_t1w else rigid) >= 0.5
                write_mask(
                    moved, grid_affine, folder / name(entities, "label-lesion_mask"), "lesions as given, on the working grid"
                )
        self._results["out_folder"] = str(Path(inputs.out) / inputs.scan_id)
        return runtime


class TissuesInput(BaseInterfaceInputSpec):
    scan_id = traits.Str(mandatory=True)
    stripped = Directory(exists=True, mandatory=True, desc="folder that Strip wrote")
    aligned = Directory(exists=True, mandatory=True, desc="folder that Align wrote")
    out = Directory(mandatory=True)


class Tissues(SimpleInterface):
    """The prepared folder of a scan: tissues, normalised T1w and FLAIR, masks, the transform between them, quality figures."""

    input_spec = TissuesInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        inputs = self.inputs
        aligned = Path(inputs.aligned)
        brain_path = find_image(inputs.stripped, "desc-brain_mask.nii.gz")
        brain, affine = read_mask(brain_path)
        t1w, _ = read_volume(find_image(aligned, "desc-biascorr_T1w.nii.gz"))
        flair, _ = read_volume(find_image(aligned, "desc-biascorr_FLAIR.nii.gz"))
        lesions = sorted(aligned.glob("*_label-lesion_mask.nii.gz"))
        lesion = read_mask(lesions[0])[0] if lesions else np.zeros(brain.shape, bool)
        transform = str(find_image(inputs.stripped, "".join(TEMPLATE_TO_T1W)))
        entities = _grid_entities_of(brain_path, inputs.scan_id)

        with new_folder(Path(inputs.out) / inputs.scan_id) as folder:
            with ants_scratch(folder):
                priors = _priors_on(to_ants(brain, affine), transform)
                classes = tissues.classify(t1w, brain, priors, affine)
            classes = tissues.lesions_to_white_matter(classes, flair, priors[2], lesion)

            def path(*parts: str) -> Path:
                return folder / derivative(inputs.scan_id, entities, *parts)

            write_volume(tissues.normalise(t1w, brain), affine, path("desc-preproc", "T1w"))
            write_volume(tissues.normalise(flair, brain), affine, path("desc-preproc", "FLAIR"))
            write_mask(brain, affine, path("desc-brain_mask"), "brain, on the working grid")
            write_volume(classes, affine, path("dseg"))
            write_json(
                {"1": "CSF", "2": "GM", "3": "WM"}, folder / derivative(inputs.scan_id, entities, "dseg", extension=".json")
            )
            for pattern in ("*_label-lesion_mask.*", "*_res-native_desc-brain_mask.*", "*_xfm.mat"):
                for file in aligned.glob(pattern):
                    shutil.copyfile(file, folder / file.name)
            figures = quality_figures(t1w, flair, brain, classes, lesion if lesions else None, affine)
            write_json(figures, folder / derivative(inputs.scan_id, "desc-prepare", extension=".json"))
        self._results["out_folder"] = str(Path(inputs.out) / inputs.scan_id)
        return runtime


def _grid_entities_of(brain_mask: Path, scan_id: str) -> str:
    """The entities of the working grid in the name of the mask that Strip wrote, such as `space-T1w_res-1mm`."""
    return brain_mask.name.removeprefix(scan_id + "_").removesuffix("_desc-brain_mask.nii.gz")


def _read_finite(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a scan; raises InputError where a voxel is NaN or infinite, which would empty every result without a word."""
    data, affine = read_volume(path)
    broken = int((~np.isfinite(data)).sum())
    if broken:
        raise InputError(f"{path}: holds {broken} NaN or infinite voxels; replace them by 0 or export the scan again")
    return data, affine


def _priors_on(grid: Any, template_to_scan: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The template's tissue priors (CSF, GM, WM) on a scan's grid."""
    import ants

    template = load_template(strip.COARSE_MM)
    csf, gm, wm = (
        from_ants(ants.apply_transforms(grid, to_ants(prior, template.affine), [template_to_scan], interpolator="linear"))[0]
        for prior in (template.csf, template.gm, template.wm)
    )
    return csf, gm, wm


def quality_figures(
    t1w: np.ndarray, flair: np.ndarray, brain: np.ndarray, classes: np.ndarray, lesion: np.ndarray | None, affine: np.ndarray
) -> dict[str, float | None]:
    """What a person would check first: volumes in ml and the T1w-FLAIR mutual information (Mattes, in nats) inside the brain."""
    import ants

    voxel_ml = voxel_volume_mm3(affine) / 1000
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(brain))
    information = ants.image_mutual_information(to_ants(t1w[box] * brain[box], affine), to_ants(flair[box] * brain[box], affine))
    return {
        "brain_volume_ml": float(brain.sum()) * voxel_ml,
        "csf_volume_ml": float((classes == tissues.CSF).sum()) * voxel_ml,
        "gm_volume_ml": float((classes == tissues.GM).sum()) * voxel_ml,
        "wm_volume_ml": float((classes == tissues.WM).sum()) * voxel_ml,
        "lesion_volume_ml": None if lesion is None else float(lesion.sum()) * voxel_ml,
        "mutual_information_nats": -float(information),
    }

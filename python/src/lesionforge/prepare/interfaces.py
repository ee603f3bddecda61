"""nipype interfaces of `prepare`: files in, one folder of files out."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, SimpleInterface, traits

from lesionforge.errors import InputError
from lesionforge.images import (
    CONTRASTS,
    Grid,
    ants_path,
    ants_scratch,
    derivative,
    files_of_a_tool,
    find_image,
    find_images,
    grid_entities,
    read_image,
    read_mask,
    read_mask_on,
    read_record,
    read_volume,
    resample,
    same_grid,
    to_ants,
    voxel_volume_mm3,
    working_grid,
    world_matrix,
    write_json,
    write_mask,
    write_volume,
)
from lesionforge.images.check import form_disagreement_mm, judge_voxels
from lesionforge.images.deform import dice, displacement_field, folding_fraction, write_displacement
from lesionforge.images.geometry import box_around, sub_grid
from lesionforge.images.interfaces import FolderOutput, result_folder
from lesionforge.images.names import ALWAYS, FURTHER
from lesionforge.images.prepared import ROUGH_TEMPLATE_TO_T1W, native_brain_mask_name, to_t1w_name
from lesionforge.images.resample import covered
from lesionforge.prepare import align, engines, figures, strip, tissues

STRIPPED = "stripped"
MIN_BRAIN_ML = 500
TEMPLATE_TO_T1W = ("from-MNI152_to-T1w_mode-image_desc-rough_xfm", ".h5")
# The brain's surroundings that registration and bias fields see.
SURROUNDINGS_MM = 6
# The brain's mask needs its bias field less exactly than its intensities do.
MASK_SHRINK_FACTOR = 3
# How far apart the displacements lie that the prepared folder keeps of the rough registration, which is smooth.
ROUGH_SPACING_MM = 4
# How far beyond the scan the template is looked for, to tell how much of it was cut off.
BEYOND_MM = 60
# What a prepared folder was made of: checksums of scans and masks, and settings.
GIVEN_RECORD = "desc-given.json"
# What each interface always writes of its scan, and what all its files are called.
STRIP_RECORD, ALIGN_RECORD, PREPARE_RECORD = "desc-strip.json", "desc-align.json", "desc-prepare.json"
STRIP_FILES = files_of_a_tool(
    STRIP_RECORD, "space-T1w_res-*mm_desc-brain_mask.*", "".join(TEMPLATE_TO_T1W), "from-*_to-T1w_mode-image_xfm.mat"
)
ALIGN_FILES = files_of_a_tool(
    ALIGN_RECORD,
    "space-T1w_res-*mm_desc-biascorr_*",
    "space-T1w_res-*mm_label-lesion_mask.*",
    "space-*_res-native_desc-brain_mask.*",
    "space-*_res-native_label-lesion_mask.*",
)
PREPARED_FILES = files_of_a_tool(
    PREPARE_RECORD,
    GIVEN_RECORD,
    "space-T1w_res-*mm_desc-preproc_*",
    *(
        f"{grid}_{mask}.*"
        for grid in ("space-T1w_res-*mm", "space-*_res-native")
        for mask in ("desc-brain_mask", "dseg", "label-lesion_mask")
    ),
    "from-*_to-T1w_mode-image_xfm.mat",
    "from-MNI152_to-T1w_mode-image_desc-rough_xfm.*",
)


class StripInput(BaseInterfaceInputSpec):
    scan_id = traits.Str(mandatory=True)
    t1w = File(exists=True, mandatory=True)
    flair = File(exists=True, mandatory=True)
    t2w = File(exists=True)
    pdw = File(exists=True)
    brain_mask = traits.Either(File(exists=True), traits.Enum(STRIPPED), desc="a mask on the T1w grid, or 'stripped'")
    engine = traits.Enum(*engines.NAMES, usedefault=True)
    voxel_mm = traits.Float(1.0, usedefault=True)
    out = Directory(mandatory=True)


class Strip(SimpleInterface):
    """Brain mask on the working grid, the rough transform from the template and the rigid ones from the other contrasts.

    A given mask, or one by an external engine, is taken as it is; the builtin engine looks at T1w and FLAIR.
    """

    input_spec = StripInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        inputs = self.inputs
        t1w, flair = _read_scan(inputs.t1w), _read_scan(inputs.flair)
        grid = working_grid(t1w[0].shape, t1w[1], inputs.voxel_mm)
        coarse_grid = working_grid(t1w[0].shape, t1w[1], align.COARSE_MM)
        results = result_folder(inputs, inputs.scan_id, STRIP_RECORD, STRIP_FILES)
        with results as folder, ants_scratch(folder, inputs.scan_id) as outprefix:
            given = self._given_mask(t1w, Path(outprefix).parent)
            head = resample(*t1w, coarse_grid)
            coarse = strip.coarse_without_bias(head, coarse_grid[1])
            rough = strip.rough_mask(coarse, coarse_grid[1]) if given is None else resample(given, t1w[1], coarse_grid) >= 0.5
            self._refuse_small_brain(rough, coarse_grid[1])
            to_template = strip.template_onto(to_ants(coarse * rough, coarse_grid[1]), outprefix)
            prior = rough if given is not None else _template_brain(coarse_grid, to_template)
            around = strip.dilated(prior, SURROUNDINGS_MM, align.COARSE_MM)
            rigid = {}
            for name, moving in ({"FLAIR": flair} | {name: _read_scan(path) for name, path in _further(inputs).items()}).items():
                own_prefix = f"{outprefix}{name}_"
                found = align.rigid_between((head, coarse_grid[1]), t1w, moving, (around, coarse_grid[1]), own_prefix)
                # A rigid registration interpolates: scans that were aligned before stay as they are.
                aligned_before = same_grid(t1w[0].shape, t1w[1], moving[0].shape, moving[1])
                if aligned_before and not align.improves_alignment((head, coarse_grid[1]), moving, found):
                    align.write_identity(found)
                rigid[name] = found
            if given is not None:
                brain = resample(given, t1w[1], grid) >= 0.5
            else:
                to_flair = world_matrix(rigid["FLAIR"])
                brain = self._by_both_contrasts(t1w, flair, to_flair, (around, coarse_grid[1]), to_template, grid)
            self._refuse_small_brain(brain, grid[1])
            mask_name = derivative(inputs.scan_id, grid_entities(inputs.voxel_mm), "desc-brain_mask")
            write_mask(brain, grid[1], folder / mask_name, "brain, on the working grid")
            shutil.copyfile(to_template, folder / derivative(inputs.scan_id, TEMPLATE_TO_T1W[0], extension=TEMPLATE_TO_T1W[1]))
            for name, path in rigid.items():
                shutil.copyfile(path, folder / derivative(inputs.scan_id, to_t1w_name(name), extension=""))
            found_by = inputs.engine if not inputs.brain_mask else STRIPPED if inputs.brain_mask == STRIPPED else "given"
            write_json({"skull_stripping": found_by}, folder / derivative(inputs.scan_id, STRIP_RECORD, extension=""))
        self._results["out_folder"] = str(Path(inputs.out) / inputs.scan_id)
        return runtime

    def _by_both_contrasts(
        self,
        t1w: align.Volume,
        flair: align.Volume,
        to_flair: np.ndarray,
        around: align.Volume,
        to_template: str,
        grid: Grid,
    ) -> np.ndarray:
        """The template's mask on the working grid, refined where T1w and FLAIR show the surface of the brain.

        All is done in the box of `around`, a mask of the brain and SURROUNDINGS_MM about it.
        """
        box, part = sub_grid(*around, strip.REACH_MM - SURROUNDINGS_MM, grid)
        seen = resample(*around, part) >= 0.5
        images = [
            align.without_bias(resample(*volume, part, matrix), seen, part[1], MASK_SHRINK_FACTOR)
            for volume, matrix in ((t1w, None), (flair, to_flair))
        ]
        brain = np.zeros(grid[0], bool)
        brain[box] = strip.refined(images[0], images[1], _template_brain(part, to_template), self.inputs.voxel_mm)
        return brain

    def _refuse_small_brain(self, brain: np.ndarray, affine: np.ndarray) -> None:
        volume_ml = float(brain.sum()) * voxel_volume_mm3(affine) / 1000
        if volume_ml < MIN_BRAIN_ML:
            raise InputError(
                f"{self.inputs.t1w}: only {volume_ml:.0f} ml of brain were found; "
                "check that it is a T1w of a whole head, or give a brain_mask"
            )

    def _given_mask(self, t1w: align.Volume, scratch: Path) -> np.ndarray | None:
        """The brain on the T1w's own grid as the sheet or an external engine says it; None where it is to be found here."""
        given, engine = self.inputs.brain_mask, self.inputs.engine
        if given == STRIPPED:
            return strip.brain_of_stripped(t1w[0])
        if given:
            mask, mask_affine = read_mask(given)
            if not same_grid(mask.shape, mask_affine, t1w[0].shape, t1w[1]):
                raise InputError(f"{given}: does not lie on the grid of {self.inputs.t1w}; resample the brain mask to the T1w")
            return mask
        if engine == "given":
            raise InputError(f"{self.inputs.t1w}: --strip_engine given needs a brain mask; give one or choose another engine")
        if engine == "builtin":
            return None
        folder = scratch / "engine"
        folder.mkdir()
        return engines.brain_by_engine(engine, self.inputs.t1w, folder)


class AlignInput(BaseInterfaceInputSpec):
    scan_id = traits.Str(mandatory=True)
    t1w = File(exists=True, mandatory=True)
    flair = File(exists=True, mandatory=True)
    t2w = File(exists=True)
    pdw = File(exists=True)
    lesion_mask = File(exists=True)
    stripped = Directory(exists=True, mandatory=True, desc="folder that Strip wrote")
    denoise = traits.Bool(False, usedefault=True)
    out = Directory(mandatory=True)


class Align(SimpleInterface):
    """All contrasts and the lesion mask on the working grid, each interpolated once, the contrasts without bias field.

    Masks on the native grids carry the headers of the scans as given.
    """

    input_spec = AlignInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        inputs = self.inputs
        stripped = Path(inputs.stripped)
        found = _record_of(stripped, inputs.scan_id, STRIP_RECORD, "strip")
        brain_path = find_image(stripped, "desc-brain_mask.nii.gz")
        brain, affine = read_mask(brain_path)
        grid = (brain.shape, affine)
        entities = _grid_entities_of(brain_path, inputs.scan_id)
        scans = {"T1w": inputs.t1w, "FLAIR": inputs.flair} | _further(inputs)
        # From points of the T1w to points of each contrast.
        to_scan = {name: np.eye(4) if name == "T1w" else world_matrix(find_image(stripped, to_t1w_name(name))) for name in scans}
        transform = ants_path(find_image(stripped, "".join(TEMPLATE_TO_T1W)))

        def name(*parts: str, extension: str = ".nii.gz") -> str:
            return derivative(inputs.scan_id, *parts, extension=extension)

        results = result_folder(inputs, inputs.scan_id, ALIGN_RECORD, ALIGN_FILES)
        with results as folder, ants_scratch(folder, inputs.scan_id):
            sure = brain & (_priors_in(brain, affine, transform, "wm")[0] > figures.SURE)
            given = {}
            for suffix, path in scans.items():
                data, own_affine = _read_scan(path)
                given[suffix] = (data.shape, own_affine)
                moved = resample(align.denoised(data) if inputs.denoise else data, own_affine, grid, to_scan[suffix])
                corrected = align.without_bias(moved, brain, affine)
                before, after = (figures.variation(image, sure) for image in (moved, corrected))
                found[f"{suffix.lower()}_bias_reduction_percent"] = figures.reduction_percent(before, after)
                write_volume(corrected, affine, folder / name(entities, f"desc-biascorr_{suffix}"))
            beyond = _grown_grid(grid, BEYOND_MM, 2 * align.COARSE_MM)
            template_brain = strip.template_on(beyond, transform, "brain")[0]
            found["field_of_view_cut_percent"] = _cut_percent(template_brain, beyond, given, to_scan)
            found["form_disagreement_mm"] = np.max([form_disagreement_mm(read_image(path)) for path in scans.values()])
            found["denoised"] = bool(inputs.denoise)
            write_json(found, folder / name(ALIGN_RECORD, extension=""))

            lesion = self._lesion(given)
            for space, path in scans.items():
                to_t1w = np.linalg.inv(to_scan[space])
                like = read_image(path)
                native = folder / name(f"space-{space}_res-native", "desc-brain_mask")
                mask = resample(brain, affine, given[space], to_t1w) >= 0.5
                write_mask(mask, affine, native, f"brain, on the grid of the {space} as given", like)
                if lesion is not None:
                    # On the grid that it was given on the mask stays itself.
                    there, from_there = lesion
                    own = from_there == space
                    mask = there[0] if own else resample(*there, given[space], to_scan[from_there] @ to_t1w) >= 0.5
                    native = folder / name(f"space-{space}_res-native", "label-lesion_mask")
                    write_mask(mask, affine, native, f"lesions as given, on the grid of the {space} as given", like)
            if lesion is not None:
                moved = resample(*lesion[0], grid, to_scan[lesion[1]]) >= 0.5
                target = folder / name(entities, "label-lesion_mask")
                write_mask(moved, affine, target, "lesions as given, on the working grid")
        self._results["out_folder"] = str(Path(inputs.out) / inputs.scan_id)
        return runtime

    def _lesion(self, given: dict[str, Any]) -> tuple[align.Volume, str] | None:
        """The lesion mask as given and whose grid it lies on; on a grid that both share it belongs to the T1w."""
        path = self.inputs.lesion_mask
        return read_mask_on(path, {space: given[space] for space in ("T1w", "FLAIR")}) if path else None


class TissuesInput(BaseInterfaceInputSpec):
    scan_id = traits.Str(mandatory=True)
    stripped = Directory(exists=True, mandatory=True, desc="folder that Strip wrote")
    aligned = Directory(exists=True, mandatory=True, desc="folder that Align wrote")
    given = traits.Dict(desc="what the scan is made of; it is kept beside it")
    out = Directory(mandatory=True)


class Tissues(SimpleInterface):
    """The prepared folder of a scan: tissues, normalised contrasts, masks, the transforms between them, quality figures.

    What the scan is `given` as having been made of appears with the folder, which nothing vouches for without.
    """

    input_spec = TissuesInput
    output_spec = FolderOutput

    def _run_interface(self, runtime: Any) -> Any:
        inputs = self.inputs
        aligned = Path(inputs.aligned)
        _record_of(Path(inputs.stripped), inputs.scan_id, STRIP_RECORD, "strip")
        found = _record_of(aligned, inputs.scan_id, ALIGN_RECORD, "align")
        brain_path = find_image(inputs.stripped, "desc-brain_mask.nii.gz")
        brain, affine = read_mask(brain_path)
        images = {
            name: read_volume(find_image(aligned, f"desc-biascorr_{name}.nii.gz"))[0]
            for name in CONTRASTS
            if name in ALWAYS or find_images(aligned, f"desc-biascorr_{name}.nii.gz")
        }
        t1w, flair = images["T1w"], images["FLAIR"]
        entities = _grid_entities_of(brain_path, inputs.scan_id)
        lesions = sorted(aligned.glob(f"*_{entities}_label-lesion_mask.nii.gz"))
        lesion = read_mask(lesions[0])[0] if lesions else None
        transform = ants_path(find_image(inputs.stripped, "".join(TEMPLATE_TO_T1W)))
        rigid = {name: find_image(inputs.stripped, to_t1w_name(name)) for name in images if name != "T1w"}

        with result_folder(inputs, inputs.scan_id, PREPARE_RECORD, PREPARED_FILES) as folder:
            with ants_scratch(folder, inputs.scan_id) as outprefix:
                priors = _priors_in(brain, affine, transform, "csf", "gm", "wm")
                classes = tissues.classify(t1w, brain, priors, affine)
                coarse = working_grid(brain.shape, affine, max(align.COARSE_MM, float(affine[0, 0])))
                field = displacement_field(to_ants(np.zeros(coarse[0], np.float32), coarse[1]), [transform], outprefix)
            for name, image in images.items():
                found[f"{name.lower()}_contrast"] = figures.contrast(image, brain, priors)
            expected = np.where(brain, np.argmax(priors, axis=0) + 1, 0)
            for label, tissue in ((tissues.GM, "gm"), (tissues.WM, "wm")):
                found[f"template_dice_{tissue}"] = dice(expected == label, classes == label)
            coarse_brain = resample(brain, affine, coarse) >= 0.5
            found["template_folding_percent"] = 100 * folding_fraction(field, coarse[1], coarse_brain)
            classes = tissues.hyperintense_to_white_matter(classes, flair, priors[2], float(affine[0, 0]))
            found |= figures.tissue_volumes(brain, classes, affine) | figures.lesion_figures(lesion, brain, affine)
            found["mutual_information_nats"] = figures.mutual_information(t1w, flair, brain, affine)
            there = {name: resample(image, affine, coarse) for name, image in images.items()}
            brain_there = resample(brain, affine, coarse)
            for name in rigid:
                found[f"{name.lower()}_mismatch"] = figures.mismatch(
                    there["T1w"], there[name], brain_there, float(coarse[1][0, 0])
                )

            def path(*parts: str, extension: str = ".nii.gz") -> Path:
                return folder / derivative(inputs.scan_id, *parts, extension=extension)

            for suffix, image in images.items():
                says = f"{suffix}, without bias field, in units of a standard brain, on the working grid"
                units = tissues.standard_units(image, brain, classes)
                sidecar = {"Description": says, "SkullStripped": True, "StandardUnits": asdict(units)}
                write_volume(units.normalise(image, brain), affine, path(entities, "desc-preproc", suffix), sidecar=sidecar)
            write_mask(brain, affine, path(entities, "desc-brain_mask"), "brain, on the working grid")
            _write_tissues(classes, affine, path(entities, "dseg"), "tissues, on the working grid")
            for pattern in ("*_label-lesion_mask.*", "*_res-native_*"):
                for file in aligned.glob(pattern):
                    shutil.copyfile(file, folder / file.name)
            for transform_file in rigid.values():
                shutil.copyfile(transform_file, folder / transform_file.name)
            _write_rough(field, coarse[1], coarse_brain, path(ROUGH_TEMPLATE_TO_T1W, extension=""))
            for space in images:
                to_t1w = np.linalg.inv(world_matrix(rigid[space])) if space in rigid else None
                like = read_image(find_image(aligned, native_brain_mask_name(space)))
                native = _classes_onto(classes, affine, (like.shape, like.affine), to_t1w)
                target = path(f"space-{space}_res-native", "dseg")
                _write_tissues(native, affine, target, f"tissues, on the grid of the {space} as given", like)
            write_json(found, path(PREPARE_RECORD, extension=""))
            if inputs.given:
                write_json(inputs.given, path(GIVEN_RECORD, extension=""))
        self._results["out_folder"] = str(Path(inputs.out) / inputs.scan_id)
        return runtime


def _further(inputs: Any) -> dict[str, str]:
    """The paths of the contrasts besides T1w and FLAIR that an interface was given, by name."""
    return {name: path for name in FURTHER if (path := getattr(inputs, name.lower()))}


def _record_of(folder: Path, scan_id: str, record: str, step: str) -> dict[str, Any]:
    """What a step of `prepare` wrote of a scan; raises InputError where the folder is none of that step or of another scan."""
    path = folder / derivative(scan_id, record, extension="")
    if not path.is_file():
        raise InputError(f"{folder}: holds no {path.name}; give the folder that prepare {step} wrote for {scan_id}")
    return read_record(path, "skull_stripping")


def _grid_entities_of(brain_mask: Path, scan_id: str) -> str:
    """The entities of the working grid in the name of the mask that Strip wrote, such as `space-T1w_res-1mm`."""
    return brain_mask.name.removeprefix(scan_id + "_").removesuffix("_desc-brain_mask.nii.gz")


def _read_scan(path: str) -> align.Volume:
    """Read a scan, its background moved to 0.

    Raises InputError where a voxel is NaN or infinite, which would empty every result without a word, or where all
    voxels have one value, or all but those below the background's.
    """
    data, affine = read_volume(path)
    _, largest, faults = judge_voxels(data, is_mask=False)
    if faults:
        raise InputError(f"{path}: {faults[0]}")
    background = np.percentile(data, align.BACKGROUND_PERCENTILE)
    if largest <= background:
        raise InputError(f"{path}: has the value {background:g} in nearly all voxels; give the scan itself")
    return np.maximum(data - background, 0), affine


def _write_rough(field: np.ndarray, affine: np.ndarray, brain: np.ndarray, path: Path) -> None:
    """Keep what a displacement [x, y, z, 3] on a coarse grid does in a brain, at points ROUGH_SPACING_MM apart."""
    step = max(1, round(ROUGH_SPACING_MM / float(affine[0, 0])))
    box, box_affine = box_around(brain, affine, 2 * ROUGH_SPACING_MM)
    write_displacement(field[box][::step, ::step, ::step], box_affine @ np.diag([step] * 3 + [1]), path)
    sidecar = {
        "Description": "rough registration of the template, as ANTs applies it: from points of the T1w to points of MNI152",
        "SpatialReference": "space of the T1w scan",
        "Resolution": f"displacements in mm, {step * affine[0, 0]:g} mm apart, around the brain",
    }
    write_json(sidecar, Path(str(path).removesuffix(".nii.gz") + ".json"))


def _template_brain(grid: Grid, template_to_scan: str) -> np.ndarray:
    """The template's brain mask on a grid in a scan's space: linear interpolation, cut at one half; bool [x, y, z]."""
    return strip.largest_component(strip.template_on(grid, template_to_scan, "brain")[0] >= 0.5)


def _priors_in(brain: np.ndarray, affine: np.ndarray, template_to_scan: str, *names: str) -> list[np.ndarray]:
    """The template's tissue priors of these names (`csf`, `gm`, `wm`) on a brain's grid, found in its box only; 0 beyond."""
    box, box_affine = box_around(brain, affine, 0)
    priors = [np.zeros(brain.shape, np.float32) for _ in names]
    for prior, found in zip(priors, strip.template_on((brain[box].shape, box_affine), template_to_scan, *names), strict=True):
        prior[box] = found
    return priors


def _grown_grid(grid: Grid, by_mm: float, voxel_mm: float) -> Grid:
    """A coarse grid that reaches farther than another on all sides."""
    affine = grid[1].copy()
    voxels = int(np.ceil(by_mm / affine[0, 0]))
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, voxels)
    return working_grid(tuple(n + 2 * voxels for n in grid[0]), affine, voxel_mm)


def _cut_percent(template_brain: np.ndarray, grid: Grid, given: dict[str, Any], to_scan: dict[str, np.ndarray]) -> float:
    """The share in percent of the template's brain, on a grid in T1w space, outside the field of view of a contrast."""
    inside = np.ones(template_brain.shape, bool)
    for space, matrix in to_scan.items():
        shape, affine = given[space]
        inside &= covered(shape, np.linalg.inv(affine) @ matrix @ grid[1], template_brain.shape)
    total = float(template_brain.sum())
    return 100 * float(template_brain[~inside].sum()) / total if total else float("nan")


def _classes_onto(classes: np.ndarray, affine: np.ndarray, onto: Grid, to_t1w: np.ndarray | None) -> np.ndarray:
    """Tissue classes on another grid: the class (0 to 3) with the largest share of each voxel; uint8."""
    shares = np.stack([resample(classes == label, affine, onto, to_t1w) for label in (1, 2, 3)])
    shares = np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares])
    return shares.argmax(axis=0).astype(np.uint8)


def _write_tissues(
    classes: np.ndarray, affine: np.ndarray, path: Path, description: str, like: nib.Nifti1Image | None = None
) -> None:
    """Write tissue classes with a sidecar that says what the labels mean."""
    sidecar = {"Description": description, "LabelMap": {"1": "CSF", "2": "GM", "3": "WM"}}
    write_volume(classes.astype(np.uint8), affine, path, like, sidecar)

"""A cohort of phantoms as a BIDS folder with a samplesheet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from lesionforge import __version__
from lesionforge.errors import InputError
from lesionforge.images import derivative, new_folder, voxel_volume_mm3, write_json, write_mask, write_volume
from lesionforge.images.template import load_template
from lesionforge.phantom.anatomy import Anatomy, build_anatomy
from lesionforge.phantom.head import HeadSpec, build_head, draw_head
from lesionforge.phantom.scan import PhantomScans, scan_head

SHEET_COLUMNS = ("subject", "session", "role", "split", "t1w", "flair", "t2w", "pdw", "lesion_mask", "brain_mask")
FLAIR_SLOPE = 0.05


@dataclass(frozen=True)
class Subject:
    """One row of the cohort: label (`p01`), role and split."""

    label: str
    role: str
    split: str
    number: int


def plan_subjects(patients: int, healthy: int) -> list[Subject]:
    """Who is in the cohort: the last patient tests, with four or more the one before validates, all others train."""
    splits = ["train"] * patients
    if patients >= 2:
        splits[-1] = "test"
    if patients >= 4:
        splits[-2] = "validation"
    people = [Subject(f"p{number + 1:02d}", "patient", split, number) for number, split in enumerate(splits)]
    return people + [Subject(f"h{number + 1:02d}", "healthy", "train", number) for number in range(healthy)]


def write_cohort(
    out: Path,
    patients: int,
    healthy: int,
    seed: int,
    voxel_mm: float,
    progress: Callable[[str], None],
    further: Sequence[str] = (),
) -> None:
    """Make a cohort and write it to `out` as a whole; calls `progress` with one line after each head.

    `further` names the contrasts besides T1w and FLAIR.

    Raises InputError when no head is asked for, and when `out` exists and is not an empty folder.
    """
    if patients + healthy == 0:
        raise InputError("phantom: no head was asked for; give --patients or --healthy a number above 0")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder; name a new folder or remove this one")
    anatomy = build_anatomy(load_template(1))
    subjects = plan_subjects(patients, healthy)
    with new_folder(out.resolve()) as folder:
        for subject in subjects:
            spec, scans = make_subject(anatomy, subject, seed, voxel_mm, further)
            write_subject(folder, subject, spec, scans)
            load_ml = scans.lesion.sum() * voxel_volume_mm3(scans.t1w_affine) / 1000
            progress(f"sub-{subject.label}: {len(spec.lesions)} lesions, {load_ml:.1f} ml")
        write_tables(folder, subjects, further)


def make_subject(
    anatomy: Anatomy, subject: Subject, seed: int, voxel_mm: float, further: Sequence[str] = ()
) -> tuple[HeadSpec, PhantomScans]:
    """Draw and scan one head; it depends on the seed, the role and the number only, not on the size of the cohort."""
    patient = subject.role == "patient"
    rng = np.random.default_rng([seed, int(patient), subject.number])
    spec = draw_head(rng, anatomy, with_lesions=patient, further=further)
    return spec, scan_head(spec, build_head(spec, anatomy), voxel_mm)


def scan_paths(subject: Subject, further: Sequence[str] = ()) -> dict[str, str]:
    """The paths of one subject's files in the cohort folder, by samplesheet column; no mask for the healthy."""
    name = f"sub-{subject.label}"
    mask = f"derivatives/manual/{name}/anat/{derivative(name, 'label-lesion_mask')}"
    return {
        "t1w": f"{name}/anat/{derivative(name, 'T1w')}",
        "flair": f"{name}/anat/{derivative(name, 'FLAIR')}",
        "lesion_mask": mask if subject.role == "patient" else "",
    } | {contrast.lower(): f"{name}/anat/{derivative(name, contrast)}" for contrast in further}


def write_subject(folder: Path, subject: Subject, spec: HeadSpec, scans: PhantomScans) -> None:
    """Write one subject's scans, lesion mask and truth."""
    name = f"sub-{subject.label}"
    paths = scan_paths(subject, list(scans.further))
    write_volume(np.rint(scans.t1w).astype(np.int16), scans.t1w_affine, folder / paths["t1w"])
    write_scaled(scans.flair, scans.flair_affine, FLAIR_SLOPE, folder / paths["flair"])
    for contrast, (image, affine) in scans.further.items():
        write_scaled(image, affine, FLAIR_SLOPE, folder / paths[contrast.lower()])
    if paths["lesion_mask"]:
        write_mask(scans.lesion, scans.t1w_affine, folder / paths["lesion_mask"], "Lesions, exact, on the grid of the T1w")
    truth = folder / "derivatives" / "phantom" / name / "anat"
    # Not called desc-brain, which the cohort stage would take for the brain mask that it is to use.
    write_mask(scans.brain, scans.t1w_affine, truth / derivative(name, "desc-truth_mask"), "Brain, exact, on the grid of the T1w")
    write_volume(scans.tissues, scans.t1w_affine, truth / derivative(name, "dseg"))
    write_json({"1": "CSF", "2": "GM", "3": "WM, lesions included"}, truth / derivative(name, "dseg", extension=".json"))
    for contrast, matrix in ({"FLAIR": scans.flair_to_t1w} | scans.further_to_t1w).items():
        transform_name = derivative(name, f"from-{contrast}_to-T1w_mode-image_xfm", extension=".json")
        meaning = f"World points (RAS, mm) of the {contrast} to those of the T1w"
        write_json({"Description": meaning, "matrix": matrix}, truth / transform_name)
    drawn = {key: value for key, value in asdict(spec).items() if key != "further" or value}
    write_json(drawn, truth / derivative(name, "desc-phantom", extension=".json"))


def write_scaled(data: np.ndarray, affine: np.ndarray, slope: float, path: Path) -> None:
    """Write an array [x, y, z] of values 0 or more as uint16 with a scaling slope in the header, as scanners do."""
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.set_data_dtype(np.uint16)
    image.header.set_slope_inter(slope, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_tables(folder: Path, subjects: list[Subject], further: Sequence[str] = ()) -> None:
    """Write the samplesheet, the participants and the dataset descriptions."""
    with (folder / "cohort.csv").open("w", encoding="utf-8", newline="") as file:
        left_out = {"t2w", "pdw"} - {contrast.lower() for contrast in further}
        columns = [column for column in SHEET_COLUMNS if column not in left_out]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for subject in subjects:
            row = {"subject": subject.label, "role": subject.role, "split": subject.split}
            writer.writerow(dict.fromkeys(columns, "") | row | scan_paths(subject, further))
    rows = "".join(f"sub-{subject.label}\t{subject.role}\t{subject.split}\n" for subject in subjects)
    (folder / "participants.tsv").write_text(f"participant_id\trole\tsplit\n{rows}", encoding="utf-8")
    meanings = {"role": "patient (with lesions) or healthy", "split": "train, validation or test"}
    write_json({name: {"Description": text} for name, text in meanings.items()}, folder / "participants.json")
    generated_by = [{"Name": "lesionforge phantom", "Version": __version__}]
    raw = {"Name": "Phantom heads", "BIDSVersion": "1.9.0", "DatasetType": "raw", "GeneratedBy": generated_by}
    write_json(raw, folder / "dataset_description.json")
    for part, title in (
        ("manual", "Exact lesion masks of the phantoms"),
        ("phantom", "How the phantoms were made, and their truth"),
    ):
        description = raw | {"Name": title, "DatasetType": "derivative"}
        write_json(description, folder / "derivatives" / part / "dataset_description.json")

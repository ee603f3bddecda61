"""A head in miniature: concentric tissues, lesions in the white matter, 48 voxels a side."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lesionforge.images import (
    Prepared,
    Scan,
    derivative,
    grid_entities,
    label_lesions,
    write_json,
    write_mask,
    write_volume,
    zscore,
)
from lesionforge.synthesize import stage
from lesionforge.synthesize.config import CONFIGURATIONS
from lesionforge.synthesize.fill import fill_lesions
from lesionforge.synthesize.generator_folder import save_generator
from lesionforge.synthesize.levels import LEVEL_COUNT, Scale, hyperintensity_levels, scales_of
from lesionforge.synthesize.network import build_generator
from lesionforge.synthesize.tiles import StoredScan, coarsely_painted, network_images, network_levels, store_scan
from lesionforge.synthesize.transplant_folder import write_transplant

AFFINE = np.array([[1.0, 0, 0, -24], [0, 1, 0, -24], [0, 0, 1, -24], [0, 0, 0, 1]])
LESIONS = [(12, 24, 24, 3), (34, 26, 22, 2), (24, 12, 26, 2), (24, 35, 20, 3)]


def make_scan(seed: int, lesions: list[tuple[int, int, int, int]] = LESIONS) -> Scan:
    """Ventricle (CSF) in white matter in a ribbon of grey matter; lesions (x, y, z, radius) bright in FLAIR, dark in T1w."""
    rng = np.random.default_rng(seed)
    place = np.indices((48, 48, 48))
    radius = np.sqrt(((place - 24) ** 2).sum(axis=0))
    tissues = np.select([radius <= 5, radius <= 17, radius <= 21], [1, 3, 2], 0).astype(np.uint8)
    lesion = np.zeros(tissues.shape, bool)
    for x, y, z, size in lesions:
        lesion |= ((place - np.array([x, y, z])[:, None, None, None]) ** 2).sum(axis=0) <= size**2
    lesion &= tissues == 3
    brain = tissues > 0
    t1w = np.array([0, 20, 60, 100])[tissues] - 45 * lesion + 3 * rng.normal(size=tissues.shape)
    flair = np.array([0, 10, 80, 60])[tissues] + 60 * lesion + 3 * rng.normal(size=tissues.shape)
    return Scan(zscore(t1w, brain), zscore(flair, brain), brain, tissues, lesion, AFFINE)


def write_scan(scan: Scan, folder: Path) -> Path:
    """Write a scan as the prepared folder `folder`, named by its id."""
    folder.mkdir(parents=True)
    stem = (folder.name, grid_entities(1))
    for name, image in scan.images().items():
        write_volume(image, scan.affine, folder / derivative(*stem, f"desc-preproc_{name}"))
    write_mask(scan.brain, scan.affine, folder / derivative(*stem, "desc-brain_mask"), "brain")
    write_volume(scan.tissues, scan.affine, folder / derivative(*stem, "dseg"))
    write_mask(scan.lesion, scan.affine, folder / derivative(*stem, "label-lesion_mask"), "lesions")
    return folder


@pytest.fixture(scope="session", name="write_scan")
def write_scan_fixture() -> Callable[[Scan, Path], Path]:
    return write_scan


@pytest.fixture(scope="session")
def patient() -> Scan:
    return make_scan(1)


@pytest.fixture(scope="session")
def healthy() -> Scan:
    return make_scan(2, [])


@pytest.fixture(scope="session")
def cohort_root(tmp_path_factory: pytest.TempPathFactory, patient: Scan, healthy: Scan) -> Path:
    """Three patients (one of them for testing), a healthy canvas, and pair folders, as the stages before publish them."""
    root = tmp_path_factory.mktemp("outdir")
    patients = {"sub-01": patient, "sub-02": make_scan(3, LESIONS[:3]), "sub-03": make_scan(4)}
    for scan_id, scan in (patients | {"sub-04": healthy}).items():
        write_scan(scan, root / "prepare" / scan_id)
    rows = ["sub-01\tpatient\ttrain", "sub-02\tpatient\ttrain", "sub-03\tpatient\ttest", "sub-04\thealthy\ttrain"]
    (root / "cohort").mkdir()
    (root / "cohort" / "cohort.tsv").write_text("\n".join(["id\trole\tsplit", *rows]) + "\n")
    pairs = ["sub-syn0001\tsub-01\tsub-04\t0.3", "sub-syn0002\tsub-01\tsub-02\t0.2"]
    (root / "cohort" / "pairs.tsv").write_text("\n".join(["synthetic_id\tdonor\tcanvas\tload_ml", *pairs]) + "\n")
    for canvas in ("sub-04", "sub-02"):
        folder = root / "register" / f"sub-01_to_{canvas}"
        folder.mkdir(parents=True)
        # The donor lies a voxel off the canvas, as after a registration that is not perfect.
        moved = label_lesions(np.roll(patient.lesion, 2, axis=0))[0].astype(np.uint16)
        name = f"sub-01_space-{canvas.replace('-', '')}"
        write_volume(moved, AFFINE, folder / f"{name}_label-lesion_dseg.nii.gz")
        for image, suffix in ((patient.t1w, "T1w"), (patient.flair, "FLAIR")):
            write_volume(np.roll(image, 2, axis=0), AFFINE, folder / f"{name}_desc-preproc_{suffix}.nii.gz")
        write_json(
            {"donor": "sub-01", "canvas": canvas, "lesions_touching_grey_matter": []},
            folder / f"sub-01_to_{canvas}_desc-pair.json",
        )
    return root


@pytest.fixture(scope="session")
def inputs(cohort_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Levels of a patient, a transplant, and a generator that was never trained."""
    folder = tmp_path_factory.mktemp("inputs")
    stage.write_levels(Prepared.open(cohort_root / "prepare" / "sub-01"), folder / "levels", 1)
    canvas, donor_levels = Prepared.open(cohort_root / "prepare" / "sub-04"), stage.Levels.open(folder / "levels" / "sub-01")
    pair = cohort_root / "register" / "sub-01_to_sub-04"
    write_transplant("sub-syn0001", pair, canvas, donor_levels, folder / "transplant", seed=1)
    config = replace(CONFIGURATIONS["lesionforge"], width=2)
    history, typical = [{"epoch": 1, "loss": 1.0}], {name: list(range(LEVEL_COUNT + 1)) for name in ("t1w", "flair")}
    who = {"trained_on": [], "validated_on": [], "typical_levels": typical}
    save_generator(folder / "generator", build_generator(config)[1], config, history, seed=1, **who)
    return folder


def scales(scan: Scan) -> dict[str, Scale]:
    return scales_of(stage.images_of(scan), scan.tissues, scan.lesion)


@pytest.fixture(scope="session")
def patient_scales(patient: Scan) -> dict[str, Scale]:
    return scales(patient)


@pytest.fixture(scope="session")
def healthy_scales(healthy: Scan) -> dict[str, Scale]:
    return scales(healthy)


@pytest.fixture(scope="session")
def patient_units(patient: Scan, patient_scales: dict[str, Scale]) -> dict[str, np.ndarray]:
    """The patient's contrasts in units of their scales."""
    return {name: scale.units(getattr(patient, name)) for name, scale in patient_scales.items()}


@pytest.fixture(scope="session")
def levels(patient: Scan, patient_units: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return hyperintensity_levels(patient_units, patient.tissues, patient.lesion, 1.0)


@pytest.fixture(scope="session")
def example(
    patient: Scan,
    patient_scales: dict[str, Scale],
    levels: dict[str, np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> StoredScan:
    """Four slices of the patient, as the generator of ours learns from them."""
    config = CONFIGURATIONS["lesionforge"]
    filled, _ = fill_lesions([patient.t1w, patient.flair], levels["flair"] > 0, patient.tissues == 3, np.random.default_rng(1))
    slices = np.zeros_like(patient.brain)
    slices[:, :, 23:27] = patient.brain[:, :, 23:27]
    shown = network_levels(levels, config)
    real = network_images([patient.t1w, patient.flair], patient.brain, patient_scales, config)
    start = coarsely_painted(network_images(filled, patient.brain, patient_scales, config), shown, config)
    return store_scan(tmp_path_factory.mktemp("tiles") / "sub-01", real, start, shown, slices, config)

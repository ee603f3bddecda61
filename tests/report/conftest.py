"""A tiny made-up run: every stage folder, small volumes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from lesionforge.images import PLACES, write_json, write_mask, write_volume

SHAPE = (36, 44, 32)
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
GRID = "space-T1w_res-1mm"
HOSTILE = "<script>alert(1)</script>"


def ball(centre, radius) -> np.ndarray:
    grid = np.indices(SHAPE).transpose(1, 2, 3, 0)
    return (((grid - centre) / radius) ** 2).sum(-1) <= 1


def write_scan(folder: Path, seed: int, lesion: np.ndarray | None) -> None:
    """A prepared folder: an ellipsoid brain with three shells of tissue, noise, and bright lesions on FLAIR."""
    rng = np.random.default_rng(seed)
    brain = ball((18, 22, 16), (14, 18, 13))
    tissues = np.zeros(SHAPE, np.uint8)
    tissues[brain] = 1
    tissues[ball((18, 22, 16), (12, 16, 11))] = 2
    tissues[ball((18, 22, 16), (9, 13, 8))] = 3
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1).astype(np.float32)
    start = folder / f"{folder.name}_{GRID}"
    t1w = np.where(brain, tissues - 2 + smooth, 0).astype(np.float32)
    flair = np.where(brain, 1 - tissues / 3 + smooth, 0).astype(np.float32)
    if lesion is not None:
        flair[lesion] += 2
        write_mask(lesion, AFFINE, f"{start}_label-lesion_mask.nii.gz", "lesions")
    write_volume(t1w, AFFINE, f"{start}_desc-preproc_T1w.nii.gz")
    write_volume(flair, AFFINE, f"{start}_desc-preproc_FLAIR.nii.gz")
    write_volume(tissues, AFFINE, f"{start}_dseg.nii.gz")
    write_mask(brain, AFFINE, f"{start}_desc-brain_mask.nii.gz", "brain")


def table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, na_rep="n/a")


def make_root(root: Path) -> Path:
    """A finished experiment: patients 01 (train, doubtful) and 02 (test, beyond a limit), 03 without mask stopped at prepare.

    There is one synthetic scan.
    """
    lesions = {"sub-01": ball((12, 22, 16), 3) | ball((24, 30, 18), 2), "sub-02": ball((14, 26, 14), 4), "sub-03": None}
    table(
        root / "cohort/cohort.tsv",
        [
            {"id": name, "subject": HOSTILE, "session": "", "role": "patient", "split": split, "lesion_mask": mask}
            for name, split, mask in (("sub-01", "train", "/m.nii.gz"), ("sub-02", "test", "/m.nii.gz"), ("sub-03", "train", ""))
        ],
    )
    splits = {"sub-01": "train", "sub-02": "test", "sub-03": "train"}
    table(root / "cohort/folds.tsv", [{"fold": "", "id": name, "split": split} for name, split in splits.items()])
    table(root / "cohort/pairs.tsv", [{"synthetic_id": "sub-syn0001", "donor": "sub-01", "canvas": "sub-01", "split": "train"}])
    for number, name in enumerate(("sub-01", "sub-02")):
        write_scan(root / "prepare" / name, number, lesions[name])
        figures = {"brain_volume_ml": 1234.5, "csf_share_percent": (2, 0.5)[number], "lesion_outside_brain_percent": None}
        write_json(figures, root / f"prepare/{name}/{name}_desc-prepare.json")
        write_json({"dice_gm": 0.93, "folding_fraction": 0.0}, root / f"register/{name}/{name}_desc-register.json")
    write_scan(root / "synthesize/sub-syn0001", 7, lesions["sub-01"])
    write_json(
        {"donor": "sub-01", "canvas": "sub-01", "counts": {"kept": 1, "moved": 2, "cut": 1, "dropped": 3}, "canvas_filled": True},
        root / "synthesize/sub-syn0001/sub-syn0001_desc-provenance.json",
    )
    for contrast in ("T1w", "FLAIR"):
        filled = np.zeros(SHAPE, np.float32)
        write_volume(filled, AFFINE, root / f"synthesize/levels/sub-01/sub-01_{GRID}_desc-filled_{contrast}.nii.gz")
    for arm in ("real", "augmented"):
        found = ball((14, 26, 14), 2 if arm == "real" else 3.5)
        start = root / f"segment/{arm}/sub-02/sub-02_{GRID}"
        write_mask(found, AFFINE, f"{start}_label-lesion_mask.nii.gz", "prediction")
        write_volume(ndimage.gaussian_filter(found.astype(np.float32), 1), AFFINE, f"{start}_label-lesion_probseg.nii.gz")
        write_json({"kind": "cascade", "seed": 5, "epochs": 9, "versions": {"keras": "3.0"}}, root / f"train/{arm}/model.json")
        table(
            root / f"train/{arm}/history.tsv",
            [{"network": net, "epoch": e, "loss": 1 / e, "val_loss": 1.2 / e} for net in ("cnn1", "cnn2") for e in (1, 2, 3)],
        )
        table(root / f"assemble/{arm}.tsv", [{"arm": arm, "id": "sub-01", "origin": "real", "split": "train", "folder": "."}])
    nothing = {"lesion_count": 0, "volume_ml": 0.0, "largest_lesion_mm3": 0.0} | {f"lesions_{place}": 0 for place in PLACES}
    found = nothing | {"lesion_count": 2, "volume_ml": 0.25, "largest_lesion_mm3": 180.0, "lesions_deep": 2}
    rows = [{"id": "sub-02", "model": model} | row for model, row in (("real", nothing), ("augmented", found))]
    table(root / "segment/scans.tsv", rows)
    table(root / "synthesize/generator/history.tsv", [{"epoch": e, "loss": 2 / e, "val_loss": 3 / e} for e in (1, 2)])
    common = {"lesion_sensitivity": 1.0, "lesion_false_discovery": "n/a", "volume_reference_ml": 0.25}
    table(
        root / "evaluate/arms.tsv",
        [
            {"arm": "real", "subject": HOSTILE, "session": "n/a", "seed": "n/a", "dice": 0.25} | common,
            {"arm": "augmented", "subject": HOSTILE, "session": "n/a", "seed": 4, "dice": 0.75} | common,
        ],
    )
    table(
        root / "evaluate/summary.tsv",
        [
            {"arm": arm, "subject": subject, "n": 1, "dice": dice, "dice_n": 1, "lesion_sensitivity": 1}
            for arm, dice in (("real", 0.25), ("augmented", 0.75))
            for subject in ("n/a", HOSTILE)
        ],
    )
    pair = {"arm": "augmented", "against": "real", "low": "n/a", "high": "n/a", "subjects": 1}
    differences = (("dice", 0.5), ("lesion_sensitivity", 0.0), ("lesion_false_discovery", "n/a"), ("avd_percent", -20.0))
    whole = [pair | {"measure": measure, "subject": "n/a", "difference": value} for measure, value in differences]
    inside = {"resampled": "reference lesions", "low": -0.125, "high": 0.25}
    rows = [row for one in whole for row in (one | {"resampled": "subjects"}, one | inside)]
    table(root / "evaluate/comparisons.tsv", rows)
    for name in ("arms-dice.png", "sizes.png"):
        Image.fromarray(np.eye(120, dtype=np.uint8) * 255).save(root / "evaluate" / name)
    return root


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return make_root(tmp_path_factory.mktemp("run"))

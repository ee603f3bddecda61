"""Cascades given with a cohort: an unfit one is refused before any work, and so is a start that knows a test subject."""

from __future__ import annotations

import pytest

from lesionforge.images import read_tsv
from lesionforge.images.names import subjects_of

SEGMENT = ("--mode", "segment", "--model")


def refusal(sheet, *options: object) -> str:
    """The one problem of a refused cohort."""
    result = sheet.run(*map(str, options))
    assert result.exit_code == 2, result.output
    *problems, summary = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    assert "1 problem, listed above" in summary and not sheet.out.exists()
    (problem,) = problems
    return problem


@pytest.mark.parametrize("given", [SEGMENT, ("--init",)], ids=["model", "init"])
@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"contrasts": ["T1w", "FLAIR", "T2w"]}, "takes T1w, FLAIR, T2w, but the scans have no T2w; give the scans' T2w too"),
        ({"contrasts": ["T1w", "FLAIR", "SWI"]}, "takes T1w, FLAIR, SWI, but scans are prepared as T1w, FLAIR"),
        ({"contrasts": ["FLAIR", "T1w"]}, "takes FLAIR, T1w, but scans are prepared as T1w, FLAIR"),
        ({"contrasts": []}, "scans are prepared as T1w, FLAIR"),
        ({"voxel_mm": 2}, "is for voxels of 2 mm, but the scans will have 1 mm; give --voxel_mm 2, or another model"),
        ({"voxel_mm": 0}, "voxel_mm is 0, but must be a number from 0.5 to 4"),
        ({"parameters": {"lesion_threshold": 7}}, "parameters: lesion_threshold is 7, but must be"),
        ({"checksums": {}}, "lacks the checksums of its networks"),
        ({"kind": "generator"}, "holds a generator, not a cascade"),
    ],
)
def test_an_unfit_cascade_is_refused(sheet, tmp_path, write_cascade_folder, given, entries, said):
    assert said in refusal(sheet, *given, write_cascade_folder(tmp_path / "model", **entries))


def test_a_changed_network_is_refused(sheet, tmp_path, write_cascade_folder):
    (write_cascade_folder(tmp_path / "model") / "cnn2.keras").write_bytes(b"else")
    assert "checksum differs" in refusal(sheet, "--init", tmp_path / "model")


def test_a_sound_start_is_taken_at_its_own_voxel_size(sheet, tmp_path, write_cascade_folder):
    model = write_cascade_folder(tmp_path / "model", voxel_mm=2.0, training=["sub-01", "sub-04_ses-1"], validation=["sub-02"])
    result = sheet.run("--init", str(model), "--voxel-mm", "2", "--network", "valverde2017")
    assert result.exit_code == 0, result.output
    assert not result.stderr


def test_options_of_a_start_that_do_not_go_together(sheet, tmp_path, write_cascade_folder):
    model = write_cascade_folder(tmp_path / "model")
    assert "holds networks valverde2017, not nicmslesions; leave --train_network out" in refusal(
        sheet, "--init", model, "--network", "nicmslesions"
    )
    assert "--init belongs to --mode experiment, not augment" in refusal(sheet, "--mode", "augment", "--init", model)
    assert "--network belongs to --init" in refusal(sheet, "--network", "nicmslesions")


@pytest.mark.parametrize(
    ("entries", "scan"),
    [
        ({"training": ["sub-01", "sub-03_ses-2"]}, "sub-03_ses-2"),
        ({"validation": ["sub-03"]}, "sub-03"),
        ({"training": ["sub-syn0001"], "derived_from": ["sub-03", "sub-11"]}, "sub-03"),
        ({"derived_from": ["lib-03"]}, "lib-03"),
        ({"derived_from": ["lib-03ses1"]}, "lib-03ses1"),
        ({"init": {"training": ["sub-9"], "init": {"validation": ["sub-03"]}}}, "sub-03"),
    ],
    ids=str,
)
def test_a_start_that_knows_a_test_subject_is_refused(sheet, tmp_path, write_cascade_folder, entries, scan):
    said = refusal(sheet, "--init", write_cascade_folder(tmp_path / "my start", **entries))
    assert said.startswith("cohort.csv, row 4, column split: is test, but ")
    assert f"my start of --init has seen {scan} when it was trained" in said
    assert "put the subject into train, start from another model" in said


def test_a_mask_of_a_subject_that_the_model_has_seen_measures_nothing(sheet, tmp_path, write_cascade_folder):
    model = write_cascade_folder(tmp_path / "model", training=["sub-01", "sub-syn0001"], derived_from=["sub-01"])
    result = sheet.run(*SEGMENT, str(model))
    assert result.exit_code == 0, result.output
    said = [line for line in result.stderr.splitlines() if "is segmented but not measured against its mask" in line]
    assert len(said) == 1 and "row 2, column subject" in said[0] and "has seen sub-01 when it was trained" in said[0]
    masks = {row["id"]: row["lesion_mask"] for row in read_tsv(sheet.out / "folds.tsv").to_dict("records")}
    assert masks["sub-01"] == "" and masks["sub-03"] != ""
    assert all(read_tsv(sheet.out / "cohort.tsv")["lesion_mask"][:1] != "")


def test_a_subject_is_one_in_any_case_and_in_all_its_sessions(sheet, tmp_path, write_cascade_folder):
    sheet.add("P7", "patient", "test", session="1")
    sheet.add("P7", "patient", "test", session="2")
    said = refusal(sheet, "--init", write_cascade_folder(tmp_path / "model", training=["sub-p7_ses-1"]))
    assert said.startswith("cohort.csv, row 7, column split")


def test_what_an_entry_of_a_card_may_mean():
    assert subjects_of("sub-Cases1_ses-2") == ["cases1"]
    assert subjects_of("lib-Cases1ses2") == ["cases1ses2", "ca", "cases1"]
    assert subjects_of("35 T1w and FLAIR scans of MICCAI2008") == []


def test_lists_of_scans_that_are_none_are_one_sentence(sheet, tmp_path, write_cascade_folder):
    for number, (entries, said) in enumerate(
        (({"training": "sub-01"}, "model.json: training is 'sub-01'"), ({"init": {"init": 5}}, "model.json: init: init is 5"))
    ):
        assert said in refusal(sheet, "--init", write_cascade_folder(tmp_path / f"model{number}", **entries))


def test_a_start_of_weights_from_elsewhere_is_taken(sheet, tmp_path, write_cascade_folder):
    training = ["the baseline of nicMSlesions: 35 T1w and FLAIR scans of MICCAI2008 and MICCAI2016, 1 mm"]
    assert sheet.run("--init", str(write_cascade_folder(tmp_path / "model", training=training))).exit_code == 0


def test_a_card_that_hides_whom_its_synthetic_scans_are_of_is_a_warning(sheet, tmp_path, write_cascade_folder):
    result = sheet.run("--init", str(write_cascade_folder(tmp_path / "model", training=["sub-syn0001"])))
    assert result.exit_code == 0, result.output
    assert "was trained on synthetic scans, and its card does not say of whom" in result.stderr

"""BIDS folders: which scans and masks are taken, who is who, and what is said of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lesionforge.cli import main
from lesionforge.images import read_tsv


@dataclass
class Dataset:
    """A BIDS folder whose files a test adds one by one; file names may lack .nii.gz."""

    root: Path
    write_scan: object

    @property
    def out(self) -> Path:
        return self.root.parent / "out"

    def scan(self, subject: str, session: str = "", entities: str = "") -> None:
        """The T1w and the FLAIR of a session."""
        for suffix in ("T1w", "FLAIR"):
            self.file(subject, f"{entities}{suffix}", session=session)

    def file(self, subject: str, ending: str, data=None, session: str = "", pipeline: str = "", affine=None) -> Path:
        """One image, raw or of a pipeline in derivatives."""
        folder = self.root / "derivatives" / pipeline if pipeline else self.root
        labels = [f"sub-{subject}"] + ([f"ses-{session}"] if session else [])
        path = folder.joinpath(*labels, "anat", f"{'_'.join(labels)}_{ending}.nii.gz")
        return self.write_scan(path, data, affine)

    def participants(self, text: str) -> None:
        (self.root / "participants.tsv").write_text(text.replace(" ", "\t"), encoding="utf-8")

    def run(self, *arguments: str) -> Result:
        before = sorted(self.root.rglob("*"))
        command = ["--threads", "1", "cohort", "--input", str(self.root), "--out", str(self.out), *arguments]
        result = CliRunner().invoke(main, command)
        assert sorted(self.root.rglob("*")) == before
        return result

    def table(self, *arguments: str):
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return read_tsv(self.out / "cohort.tsv").set_index("id")


@pytest.fixture
def dataset(tmp_path, write_scan, lesion) -> Dataset:
    """Two patients with lesion masks and a third subject, in a folder whose own name looks like entities."""
    dataset = Dataset(tmp_path / "sub-xyz_ses-9" / "ds", write_scan)
    for subject in ("01", "02", "03"):
        dataset.scan(subject)
    for subject in ("01", "02"):
        dataset.file(subject, "label-lesion_mask", lesion(), pipeline="manual")
    return dataset


def test_a_phantom_folder_reads_like_its_sheet(phantom_cohort, tmp_path):
    for name, source in (("folder", phantom_cohort), ("sheet", phantom_cohort / "cohort.csv")):
        result = CliRunner().invoke(main, ["cohort", "--input", str(source), "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    tables = [read_tsv(tmp_path / name / "cohort.tsv").sort_values("id", ignore_index=True) for name in ("folder", "sheet")]
    assert tables[0].equals(tables[1])
    assert (tmp_path / "folder" / "pairs.tsv").read_bytes() == (tmp_path / "sheet" / "pairs.tsv").read_bytes()


def test_sessions_are_scans_and_an_incomplete_one_is_left_out_with_a_warning(dataset):
    dataset.scan("04", "a")
    dataset.file("04", "T1w", session="b")
    result = dataset.run()
    assert result.exit_code == 0, result.output
    assert result.stderr == "Warning: ds, sub-04_ses-b: has no FLAIR and is left out\n"
    assert (dataset.out / "warnings.txt").read_text() == "ds, sub-04_ses-b: has no FLAIR and is left out\n"
    assert list(read_tsv(dataset.out / "cohort.tsv")["id"]) == ["sub-01", "sub-02", "sub-03", "sub-04_ses-a"]


def test_without_participants_all_are_patients_split_by_seed(dataset):
    table = dataset.table()
    assert set(table["role"]) == {"patient"}
    assert {"train", "test"} <= set(table["split"])


@pytest.mark.parametrize(
    "header_and_words",
    [("role", "patient", "healthy"), ("group", "RRMS", "HC"), ("Diagnosis", "cis", "Healthy-Control")],
)
def test_roles_and_splits_come_from_participants(dataset, header_and_words):
    column, patient, healthy = header_and_words
    dataset.participants(
        f"participant_id {column} split\nsub-01 {patient} test\n02 {patient} train\nsub-03 {healthy} n/a\nsub-77 alien n/a\n"
    )
    table = dataset.table()
    assert list(table["role"]) == ["patient", "patient", "healthy"]
    assert list(table["split"]) == ["test", "train", "train"]


def test_what_participants_says_wrong(dataset):
    dataset.participants("participant_id group split\nsub-01 alien test\nsub-02 ms training\nsub-02 ms train\n")
    result = dataset.run()
    assert result.exit_code == 2
    assert result.stderr.splitlines()[:-1] == [
        "ds, sub-01, role: 'alien' in row 2 of participants.tsv, column group, is no role; "
        "write patient or healthy in a column role",
        "ds, sub-03, role: is not in participants.tsv; add its subject there",
        "ds, participants.tsv, row 4: sub-02 is there twice; keep one",
    ]


def test_a_split_that_is_none(dataset):
    dataset.participants("participant_id role split\nsub-01 patient test\nsub-02 patient training\nsub-03 healthy n/a\n")
    assert "ds, sub-02, split: 'training' is no split; write train" in dataset.run().stderr


def test_several_files_for_one_cell_are_a_problem_that_names_them(dataset, lesion):
    dataset.scan("03", entities="run-2_")
    other = dataset.file("01", "space-orig_desc-lesion_mask", lesion(), pipeline="second")
    result = dataset.run()
    assert result.exit_code == 2
    anat, remedy = dataset.root / "sub-03" / "anat", "list the scans with the wanted files in a samplesheet"
    first = dataset.root / "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz"
    assert result.stderr.splitlines()[:-1] == [
        f"ds, sub-01, lesion_mask: may be any of {first} and {other}; {remedy}",
        f"ds, sub-03, t1w: may be any of {anat / 'sub-03_T1w.nii.gz'} and {anat / 'sub-03_run-2_T1w.nii.gz'}; {remedy}",
        f"ds, sub-03, flair: may be any of {anat / 'sub-03_FLAIR.nii.gz'} and {anat / 'sub-03_run-2_FLAIR.nii.gz'}; {remedy}",
    ]


def test_which_masks_are_taken(dataset, lesion, affine):
    moved = affine.copy()
    moved[0, 3] = 7
    taken = dataset.file("03", "space-FLAIR_desc-lesion_mask", lesion(), pipeline="hand-drawn-1.0")
    for ending in ("space-MNI152NLin6Asym_label-lesion_mask", "space-T1w_res-native_label-lesion_mask", "label-vessel_mask"):
        dataset.file("03", ending, lesion(), pipeline="other")
    dataset.file("01", "desc-brain_mask", lesion(), pipeline="on-another-grid", affine=moved)
    brain = dataset.file("01", "space-T1w_label-brain_mask", lesion(), pipeline="fits")
    dataset.file("02", "space-FLAIR_desc-brain_mask", lesion(), pipeline="fits")
    table = dataset.table()
    assert table["lesion_mask"]["sub-03"] == str(taken)
    assert list(table["brain_mask"]) == [str(brain), "", ""]


def test_copies_that_a_pipeline_made_inside_the_folder_are_not_scans(dataset, lesion):
    dataset.file("01", "label-lesion_mask", lesion(), pipeline=str(Path("lesionforge", "work", "ab")))
    for folder in ("work/cd/inputs", "derivatives/lesionforge"):
        dataset.write_scan(dataset.root / folder / "sub-01_T1w.nii.gz")
    assert dataset.table()["t1w"]["sub-01"] == str(dataset.root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")


def test_files_are_judged_as_those_of_a_sheet_are(dataset):
    path = dataset.file("02", "FLAIR", np.full((8, 8, 8), 7, np.int16))
    assert f"ds, sub-02, flair: {path}: has the value 7 in all voxels; give the scan itself\n" in dataset.run().stderr


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "not mounted"])
def test_links_to_what_no_shell_can_carry_are_refused(dataset, lesion, tmp_path, is_there):
    """In a container what such a link leads to is not mounted; a brain mask is not left out for that."""
    scan = dataset.root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    paths = {"t1w": scan, "brain_mask": dataset.file("02", "space-T1w_desc-brain_mask", lesion(), pipeline="fits")}
    for column, path in paths.items():
        target = tmp_path / f"$(touch {column})" / path.name
        target.parent.mkdir()
        path.rename(target)
        path.symlink_to(target)
        if not is_there:
            target.unlink()
    result = dataset.run()
    assert result.exit_code == 2
    said = result.stderr.splitlines()[:-1]
    assert [line.split(" leads by a link to ")[0] for line in said] == [
        f"ds, sub-01, t1w: '{paths['t1w']}'",
        f"ds, sub-02, brain_mask: '{paths['brain_mask']}'",
    ]


def test_a_folder_without_scans_and_a_root_are_refused(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(main, ["cohort", "--input", str(tmp_path / "empty"), "--out", str(dataset.out)])
    assert result.exit_code == 2
    assert "empty: has no subject with a T1w and a FLAIR of the same session; give the root of a BIDS dataset" in result.stderr
    result = dataset.run("--root", str(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == f"Error: {dataset.root}: is a folder, and --root belongs to a samplesheet; leave --root out\n"

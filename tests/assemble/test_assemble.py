"""Laws of the arms: nothing of a test or validation subject reaches training, and both arms are judged alike."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lesionforge.assemble.arms import MADE_FOR, CohortRow, Provenance, arm_rows
from lesionforge.cli import main
from lesionforge.cohort.rows import ARMS
from lesionforge.errors import InputError
from lesionforge.images import read_tsv, write_json

COHORT = [
    CohortRow("sub-p1", "p1", "patient", "train", True),
    CohortRow("sub-p0", "p0", "patient", "train", True),
    CohortRow("sub-nomask", "nomask", "patient", "train", False),
    CohortRow("sub-val", "val", "patient", "validation", True),
    CohortRow("sub-test_ses-1", "test", "patient", "test", True),
    CohortRow("sub-test_ses-2", "test", "patient", "train", True),
    CohortRow("sub-h1", "h1", "healthy", "train", False),
]
OTHER = [Provenance("sub-cla0001", "sub-p0", "sub-p0"), Provenance("sub-mix0001", "sub-p0", "sub-nomask")]
SYNTHETIC = [Provenance("sub-syn0002", "sub-p0", "sub-h1"), Provenance("sub-syn0001", "sub-p1", "sub-p0")]
LIBRARY = frozenset({"lib-a"})
PLAIN = [row for row in COHORT if row.scan_id != "sub-test_ses-2"]


def ids(arm: str, split: str) -> list[str]:
    return [row.scan_id for row in arm_rows(arm, PLAIN, SYNTHETIC, LIBRARY) if row.split == split]


def test_real_arm_is_the_annotated_training_patients() -> None:
    assert ids("real", "train") == ["sub-p0", "sub-p1"]


def test_augmented_arm_only_adds_training_scans() -> None:
    assert ids("augmented", "train") == ["sub-p0", "sub-p1", "sub-syn0001", "sub-syn0002"]
    assert ids("augmented", "validation") == ids("real", "validation") == ["sub-val"]


def test_each_arm_trains_on_the_scans_made_for_it() -> None:
    made = [*OTHER, *SYNTHETIC]
    real, synthetic = ["sub-p0", "sub-p1"], ["sub-syn0001", "sub-syn0002"]
    expected = {
        "real": real,
        "classical": [*real, "sub-cla0001"],
        "mix": [*real, "sub-mix0001"],
        "augmented": [*real, *synthetic],
        "synthetic": synthetic,
        "published": [*real, *synthetic],
    }
    assert tuple(expected) == ARMS
    for arm, training in expected.items():
        rows = arm_rows(arm, PLAIN, made, LIBRARY)
        assert [row.scan_id for row in rows if row.split == "train"] == training
        assert [row.scan_id for row in rows if row.split == "validation"] == ["sub-val"]
        assert {row.arm for row in rows} == {arm}


def test_published_is_real_where_nothing_was_painted() -> None:
    rows = [arm_rows(arm, PLAIN, OTHER, LIBRARY) for arm in ("real", "published")]
    assert [row.scan_id for row in rows[0]] == [row.scan_id for row in rows[1]]


@pytest.mark.parametrize("arm", ["classical", "mix", "augmented", "synthetic"])
def test_an_arm_without_the_scans_made_for_it_is_refused(arm: str) -> None:
    others = [scan for scan in (*OTHER, *SYNTHETIC) if not scan.scan_id.startswith(MADE_FOR[arm])]
    with pytest.raises(InputError, match=f"arm {arm}: there is no scan {MADE_FOR[arm]}"):
        arm_rows(arm, PLAIN, others, LIBRARY)


def test_order_of_what_is_given_does_not_matter() -> None:
    assert arm_rows("augmented", PLAIN[::-1], SYNTHETIC[::-1], LIBRARY) == arm_rows("augmented", PLAIN, SYNTHETIC, LIBRARY)


@pytest.mark.parametrize("scan_id", ["sub-syn0001", "sub-cla0001", "sub-mix0001"])
@pytest.mark.parametrize("donor, canvas", [("sub-test_ses-1", "sub-h1"), ("sub-p0", "sub-test_ses-1"), ("sub-val", "sub-h1")])
def test_held_out_donor_or_canvas_is_refused(scan_id: str, donor: str, canvas: str) -> None:
    with pytest.raises(InputError, match="must not reach training"):
        arm_rows("augmented", PLAIN, [Provenance(scan_id, donor, canvas)], LIBRARY)


def test_a_scan_of_a_generator_that_learned_from_a_test_subject_is_refused() -> None:
    made = Provenance("sub-syn0001", "sub-p0", "sub-h1", ("sub-p1", "sub-val"))
    assert arm_rows("augmented", PLAIN, [made], LIBRARY)
    for source in ("sub-test_ses-1", "sub-elsewhere"):
        with pytest.raises(InputError, match=f"its generator learned from {source}"):
            arm_rows("augmented", PLAIN, [replace(made, generator_scans=("sub-p1", source))], LIBRARY)


def test_second_session_of_a_test_subject_cannot_train() -> None:
    with pytest.raises(InputError, match="give all scans of a subject one split"):
        arm_rows("real", COHORT, [], LIBRARY)


def test_unknown_source_is_refused() -> None:
    with pytest.raises(InputError, match=r"not in cohort\.tsv"):
        arm_rows("augmented", PLAIN, [Provenance("sub-syn0001", "sub-elsewhere", "sub-h1")], LIBRARY)


def test_masks_of_the_library_are_donors_and_no_canvases() -> None:
    made = [Provenance("sub-syn0001", "lib-a", "sub-h1")]
    assert "sub-syn0001" in [row.scan_id for row in arm_rows("augmented", PLAIN, made, LIBRARY)]
    for donor, canvas in (("lib-b", "sub-h1"), ("sub-p0", "lib-a")):
        with pytest.raises(InputError, match=r"not in cohort\.tsv"):
            arm_rows("augmented", PLAIN, [Provenance("sub-syn0001", donor, canvas)], LIBRARY)


def test_without_an_annotated_training_patient_the_augmented_arm_is_synthetic() -> None:
    cohort = [replace(row, has_lesion_mask=row.has_lesion_mask and row.split != "train") for row in PLAIN]
    rows = arm_rows("augmented", cohort, [Provenance("sub-syn0001", "lib-a", "sub-nomask")], LIBRARY)
    assert [(row.scan_id, row.origin, row.split) for row in rows] == [
        ("sub-val", "real", "validation"),
        ("sub-syn0001", "synthetic", "train"),
    ]


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(InputError, match="no training patient"):
        arm_rows("real", [row for row in PLAIN if row.split != "train"], [], LIBRARY)
    with pytest.raises(InputError, match="no scan sub-syn"):
        arm_rows("augmented", PLAIN, [], LIBRARY)


@pytest.fixture
def root(tmp_path: Path, write_blob_scan) -> Path:
    lines = ["id\tsubject\tsession\trole\tsplit\tlesion_mask"]
    for row in PLAIN:
        lines.append(f"{row.scan_id}\t{row.subject}\t\t{row.role}\t{row.split}\t{'/m.nii.gz' if row.has_lesion_mask else ''}")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort/cohort.tsv").write_text("\n".join(lines) + "\n")
    for scan_id in ("sub-p0", "sub-p1", "sub-val"):
        write_blob_scan(tmp_path / "prepare", scan_id, seed=1)
    for scan in SYNTHETIC:
        folder = write_blob_scan(tmp_path / "synthesize", scan.scan_id, seed=2)
        write_json({"donor": scan.donor, "canvas": scan.canvas}, folder / f"{scan.scan_id}_desc-provenance.json")
    return tmp_path


def call(root: Path) -> list[str]:
    arms = ["--arm", "real", "--arm", "augmented"]
    return ["assemble", "--cohort", f"{root}/cohort", "--root", str(root), *arms, "--out", f"{root}/assemble"]


def test_command_writes_tables_whose_folders_exist(root: Path) -> None:
    result = CliRunner().invoke(main, call(root))
    assert result.exit_code == 0, result.output
    table = read_tsv(root / "assemble/augmented.tsv")
    assert list(table.columns) == ["arm", "id", "subject", "origin", "split", "folder"]
    assert list(table["folder"]) == [
        "../prepare/sub-p0",
        "../prepare/sub-p1",
        "../prepare/sub-val",
        "../synthesize/sub-syn0001",
        "../synthesize/sub-syn0002",
    ]
    assert all((root / "assemble" / folder).is_dir() for folder in table["folder"])
    assert len(read_tsv(root / "assemble/real.tsv")) == 3


def test_command_finds_the_scans_of_every_arm(root: Path, write_blob_scan) -> None:
    for scan in OTHER:
        folder = write_blob_scan(root / "assemble", scan.scan_id, seed=3)
        write_json({"donor": scan.donor, "canvas": scan.canvas}, folder / f"{scan.scan_id}_desc-provenance.json")
    result = CliRunner().invoke(main, [*call(root), *(word for arm in ARMS for word in ("--arm", arm))])
    assert result.exit_code == 0, result.output
    made = {arm: set(read_tsv(root / f"assemble/{arm}.tsv")["folder"]) for arm in ARMS}
    assert made["classical"] - made["real"] == {"sub-cla0001"}
    assert made["mix"] - made["real"] == {"sub-mix0001"}
    assert made["synthetic"] == {"../prepare/sub-val", "../synthesize/sub-syn0001", "../synthesize/sub-syn0002"}
    assert made["published"] == made["augmented"]


def test_command_says_which_options_it_needs(root: Path) -> None:
    result = CliRunner().invoke(main, call(root)[:-2])
    assert result.exit_code == 2 and "--out are needed" in result.output


def test_command_refuses_leakage_and_writes_nothing(root: Path) -> None:
    write_json({"donor": "sub-test_ses-1", "canvas": "sub-h1"}, root / "synthesize/sub-syn0001/sub-syn0001_desc-provenance.json")
    result = CliRunner().invoke(main, call(root))
    assert result.exit_code == 2
    assert "sub-syn0001: its donor sub-test_ses-1 is a test subject" in result.output
    assert not (root / "assemble").exists()


def test_under_skip_the_real_arm_goes_on_without_synthetic_scans(root: Path) -> None:
    for folder in (root / "synthesize").glob("sub-syn*"):
        shutil.rmtree(folder)
    arguments = ["assemble", "--cohort", str(root / "cohort"), "--root", str(root), "--arm", "real", "--arm", "augmented"]
    refused = CliRunner().invoke(main, [*arguments, "--out", str(root / "assemble")])
    assert refused.exit_code == 2 and "there is no scan sub-syn" in refused.output
    skipped = CliRunner().invoke(main, [*arguments, "--on-subject-error", "skip", "--out", str(root / "assemble")])
    assert skipped.exit_code == 0, skipped.output
    assert "augmented: is left out" in skipped.output
    assert [path.name for path in sorted((root / "assemble").glob("*.tsv"))] == ["real.tsv"]


def write_pairs(root: Path, *rows: str) -> None:
    (root / "cohort/pairs.tsv").write_text("\n".join(["synthetic_id\tdonor\tcanvas\tlibrary_mask", *rows]) + "\n")


def test_command_takes_donors_of_the_library_from_the_plan(root: Path) -> None:
    """What the plan does not name came past the check for masks of test subjects."""
    write_json({"donor": "lib-a", "canvas": "sub-h1"}, root / "synthesize/sub-syn0001/sub-syn0001_desc-provenance.json")
    write_pairs(root, "sub-syn0001\tlib-b\tsub-h1\t/b.nii.gz", "sub-syn0002\tsub-p0\tsub-h1\t")
    result = CliRunner().invoke(main, call(root))
    assert result.exit_code == 2
    assert "sub-syn0001: its donor lib-a is not in cohort.tsv" in result.output
    write_pairs(root, "sub-syn0001\tlib-a\tsub-h1\t/a.nii.gz")
    result = CliRunner().invoke(main, call(root))
    assert result.exit_code == 0, result.output
    assert "sub-syn0001" in list(read_tsv(root / "assemble/augmented.tsv")["id"])


def test_an_arm_whose_training_scans_were_all_lost_is_refused_or_left_out(root: Path) -> None:
    for name in ("sub-p0", "sub-p1"):
        shutil.rmtree(root / "prepare" / name)
    refused = CliRunner().invoke(main, call(root))
    assert refused.exit_code == 2 and "holds none of the training scans of arm real" in refused.output
    skipped = CliRunner().invoke(main, [*call(root), "--on-subject-error", "skip"])
    assert skipped.exit_code == 0, skipped.output
    assert "real: is left out, none of its training scans was prepared" in skipped.output
    assert [path.name for path in (root / "assemble").glob("*.tsv")] == ["augmented.tsv"]
    for folder in (root / "synthesize").iterdir():
        shutil.rmtree(folder)
    nothing = CliRunner().invoke(main, [*call(root), "--on-subject-error", "skip"])
    assert nothing.exit_code == 2 and "holds no training scan of any arm" in nothing.output

"""`evaluate` under a protocol, with a probability map or a second rater, and `evaluate cohort` over a table."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.evaluate.protocols import PROTOCOLS, descriptions
from lesionforge.images import read_json, read_tsv, write_mask, write_volume

AFFINE = np.array([[0.0, -1.2, 0, 5], [0.9, 0, 0.5, 1], [-0.5, 0, 0.9, 2], [0, 0, 0, 1]])  # turned and oblique
SHAPE = (14, 12, 10)


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def noise(seed, density=0.2):
    return np.random.default_rng(seed).random(SHAPE) < density


def save(path, mask, affine=AFFINE):
    write_mask(mask, affine, path, "test")
    return path


def refused(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    # click says how the command is used before its own.
    assert result.stderr.count("\n") == 1 or result.stderr.startswith("Usage: ")
    assert "Error: " in result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def pair(tmp_path):
    prediction, reference = save(tmp_path / "p é.nii.gz", noise(1)), save(tmp_path / "r.nii.gz", noise(2))
    return ("--prediction", prediction, "--reference", reference)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_prints_json_of_two_masks_under_a_protocol(pair, protocol):
    result = run(*pair, "--protocol", protocol)
    assert result.exit_code == 0, result.output
    got = json.loads(result.stdout)
    assert list(got) == ["protocol", *descriptions(protocol), "reasons", "by_size"]
    assert got["protocol"] == protocol
    assert {name for name, value in got.items() if value is None} == set(got["reasons"]) == set()
    assert sum(part["lesions"] for part in got["by_size"]) == got["lesions_reference"]
    assert [part["from_mm3"] for part in got["by_size"]] == [0, 10, 50, 100, 500]
    for part in got["by_size"]:
        assert (part["recall"] is None) == (part.get("reason") == "no reference lesion of this size") == (not part["lesions"])


def test_without_a_protocol_it_is_ours(pair):
    assert run(*pair).stdout == run(*pair, "--protocol", "ours").stdout


def test_an_unknown_protocol_is_refused_with_the_known_ones(pair):
    refused(run(*pair, "--protocol", "isbi2016"), "isbi2016", *PROTOCOLS)


def test_a_probability_map_gets_its_calibration_inside_the_brain(tmp_path, pair):
    reference, brain = noise(2), noise(3, 0.5)
    write_volume(np.where(brain, reference, 0.5).astype(np.float32), AFFINE, tmp_path / "prob.nii.gz")
    prob = (*pair, "--probability", tmp_path / "prob.nii.gz")
    got = json.loads(run(*prob, "--brain-mask", save(tmp_path / "brain.nii.gz", brain)).stdout)
    assert (got["expected_calibration_error"], got["brier_score"], got["calibration_voxels"]) == (0, 0, brain.sum())
    everywhere = json.loads(run(*prob).stdout)
    assert everywhere["calibration_voxels"] == brain.size and everywhere["brier_score"] > 0
    empty = json.loads(run(*prob, "--brain-mask", save(tmp_path / "none.nii.gz", brain & ~brain)).stdout)
    assert empty["brier_score"] is None and empty["reasons"]["brier_score"] == "the brain mask is empty"


@pytest.mark.parametrize("value", [1.5, -0.5, np.nan])
def test_probabilities_beyond_0_to_1_are_refused(tmp_path, pair, value):
    data = np.full(SHAPE, 0.5, np.float32)
    data[2, 2, 2] = value
    write_volume(data, AFFINE, tmp_path / "prob.nii.gz")
    refused(run(*pair, "--probability", tmp_path / "prob.nii.gz"), "prob.nii.gz", "0 to 1")


def test_a_map_or_a_brain_mask_on_another_grid_is_refused(tmp_path, pair):
    moved = AFFINE.copy()
    moved[0, 3] += 1
    write_volume(np.zeros(SHAPE, np.float32), AFFINE, tmp_path / "prob.nii.gz")
    write_volume(np.zeros(SHAPE, np.float32), moved, tmp_path / "moved.nii.gz")
    refused(run(*pair, "--probability", tmp_path / "moved.nii.gz"), "moved.nii.gz", "same grid")
    brain = save(tmp_path / "brain.nii.gz", noise(1), moved)
    refused(run(*pair, "--probability", tmp_path / "prob.nii.gz", "--brain-mask", brain), "brain.nii.gz", "same grid")
    refused(run(*pair, "--brain-mask", brain), "--probability")


def test_what_was_printed_for_a_second_rater_scores_90_itself(tmp_path, pair):
    (tmp_path / "rater.json").write_text(run(*pair, "--protocol", "miccai2008").stdout)
    got = json.loads(run(*pair, "--protocol", "miccai2008", "--rater", tmp_path / "rater.json").stdout)
    assert got["score"] == pytest.approx(90)


def test_a_rater_of_another_protocol_or_without_its_measures_is_refused(tmp_path, pair):
    rater = tmp_path / "rater.json"
    rater.write_text(run(*pair, "--protocol", "miccai2008").stdout)
    refused(run(*pair, "--protocol", "wmh2017", "--rater", rater), "rater.json", "miccai2008 only")
    rater.write_text(json.dumps(read_json(rater) | {"protocol": "ours"}))
    refused(run(*pair, "--protocol", "miccai2008", "--rater", rater), "rater.json", "ours")
    rater.write_text(json.dumps(read_json(rater) | {"protocol": "miccai2008", "assd_mm": "far"}))
    refused(run(*pair, "--protocol", "miccai2008", "--rater", rater), "rater.json", "assd_mm")
    sound = read_json(rater) | {"protocol": "miccai2008", "assd_mm": 1}
    for name in ("assd_mm", "avd_percent", "lesion_recall", "lesion_precision"):
        wrong = [float("nan"), float("inf"), -0.1, True, 10**400, "far", []]
        for value in [*wrong, *([1.5] if name.startswith("lesion") else [])]:
            rater.write_text(json.dumps(sound | {name: value}))
            refused(run(*pair, "--protocol", "miccai2008", "--rater", rater), "rater.json", f"{name} is ")
    rater.write_text("{}")
    refused(run(*pair, "--protocol", "miccai2008", "--rater", rater), "rater.json", "lacks")


@pytest.fixture
def table(tmp_path):
    """Four pairs; the reference of the last is empty."""
    lines = ["id\tprediction\treference\tprobability\tnote"]
    for number in range(4):
        reference = noise(number, 0.02 * (number + 1)) & (number < 3)
        save(tmp_path / f"data/p{number}.nii.gz", np.where(noise(number + 10, 0.8), reference, noise(number + 20, 0.05)))
        save(tmp_path / f"data/r{number}.nii.gz", reference)
        write_volume(reference.astype(np.float32), AFFINE, tmp_path / f"data/prob{number}.nii.gz")
        lines.append(f"scan{number}\tp{number}.nii.gz\tr{number}.nii.gz\t{f'prob{number}.nii.gz' if number else ''}\tany")
    path = tmp_path / "data/table.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def keep_rows(table, *numbers):
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(lines[number + 1] for number in numbers)]) + "\n")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_table_gives_the_figures_of_each_pair_and_their_means(tmp_path, table, protocol):
    result = run("cohort", table, "--protocol", protocol, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    scans = read_tsv(tmp_path / "out/measures.tsv")
    assert list(scans["id"]) == ["scan0", "scan1", "scan2", "scan3"]
    for name in ("measures", "sizes", "agreement"):
        assert set(read_json(tmp_path / f"out/{name}.json")) == set(read_tsv(tmp_path / f"out/{name}.tsv"))
    one = json.loads(
        run("--prediction", table.parent / "p1.nii.gz", "--reference", table.parent / "r1.nii.gz", "--protocol", protocol).stdout
    )
    for name in descriptions(protocol):
        assert scans[name][1] == "n/a" if one[name] is None else float(scans[name][1]) == pytest.approx(one[name]), name
    assert scans["lesion_recall"][3] == "n/a" and "lesion_recall: the reference holds no lesion" in scans["undefined"][3]
    assert scans["brier_score"][0] == "n/a" and "brier_score: no probability map" in scans["undefined"][0]
    summary = read_tsv(tmp_path / "out/agreement.tsv").set_index("measure")
    assert float(summary["value"]["dice"]) == pytest.approx(scans["dice"].astype(float).mean())
    assert (summary["scans"]["avd_percent"], summary["reason"]["avd_percent"]) == ("3", "undefined in 1 of 4 scans")
    sizes = read_tsv(tmp_path / "out/sizes.tsv")
    together = sizes[sizes["id"] == "n/a"]
    assert together["lesions"].astype(int).sum() == scans["lesions_reference"].astype(int).sum()
    assert len(sizes) == 5 * 5


def test_the_isbi_score_is_of_the_cohort_and_undefined_with_an_empty_reference(tmp_path, table):
    run("cohort", table, "--protocol", "isbi2015", "--out", tmp_path / "out")
    summary = read_tsv(tmp_path / "out/agreement.tsv").set_index("measure")
    assert summary["value"]["isbi2015_score"] == "n/a" and "1 of 4" in summary["reason"]["isbi2015_score"]
    keep_rows(table, 0, 1, 2)
    run("cohort", table, "--protocol", "isbi2015", "--out", tmp_path / "out")
    value = read_tsv(tmp_path / "out/agreement.tsv").set_index("measure")["value"]
    parts = {name: float(value[name]) for name in ("dice", "voxel_precision", "lesion_precision", "lesion_recall")}
    wanted = (parts["dice"] + parts["voxel_precision"]) / 8 + (parts["lesion_precision"] + parts["lesion_recall"]) / 4
    assert float(value["isbi2015_score"]) == pytest.approx(wanted + float(value["volume_pearson"]) / 4)


@pytest.mark.parametrize("name", ["measures.tsv", "sizes.json", "agreement.tsv", "agreement.json"])
def test_the_tables_appear_together_or_not_at_all(tmp_path, table, name):
    """A hostile find: with a folder in the place of the last, the other tables were replaced already."""
    (tmp_path / "out" / name).mkdir(parents=True)
    refused(run("cohort", table, "--out", tmp_path / "out"), f"{name}: is a folder")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    (tmp_path / "out" / name).rmdir()
    assert run("cohort", table, "--out", tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_one_scan_has_no_correlation(tmp_path, table):
    keep_rows(table, 0)
    assert run("cohort", table, "--out", tmp_path / "out").exit_code == 0
    summary = read_tsv(tmp_path / "out/agreement.tsv").set_index("measure")
    for name in ("volume_limit_low_ml", "volume_pearson", "volume_lin"):
        assert summary["value"][name] == "n/a" and summary["reason"][name] != "n/a"


def replaced(table, old, new):
    table.write_text(table.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("reference\t", "truth\t", ("lacks the column reference",)),
        ("note", "id", ("column id twice",)),
        ("scan2", "scan1", ("scan1 twice",)),
        ("scan2", "", ("row 3", "no id")),
        ("scan2", "N/A", ("row 3", "has the id n/a")),
        ("p2.nii.gz", "gone.nii.gz", ("gone.nii.gz", "scan2", "no such file")),
        ("any\nscan1", "any\tmore\nscan1", ("row 1 has 6 cells",)),
    ],
)
def test_a_table_with_a_fault_is_refused_before_anything_is_written(tmp_path, table, old, new, words):
    replaced(table, old, new)
    refused(run("cohort", table, "--out", tmp_path / "out"), "table.tsv", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"id\tprediction\treference\n", "no rows"), (b"\xff\xfe\0", "UTF-8")]
)
def test_a_table_without_rows_or_of_bytes_is_refused(tmp_path, content, word):
    (tmp_path / "t.tsv").write_bytes(content)
    refused(run("cohort", tmp_path / "t.tsv", "--out", tmp_path / "out"), "t.tsv", word)
    refused(run("cohort", tmp_path / "no.tsv", "--out", tmp_path / "out"), "no.tsv", "no such file")


@pytest.mark.parametrize("name", ["measures.tsv", "sizes.tsv", "agreement.json"])
def test_a_table_that_an_output_would_replace_is_refused_and_stays(tmp_path, table, name):
    own = table.rename(table.with_name(name))
    before = {path.name: path.read_bytes() for path in own.parent.iterdir()}
    refused(run("cohort", own, "--out", own.parent), str(own), "would be replaced")
    (tmp_path / "link").symlink_to(own.parent)
    refused(run("cohort", own, "--out", tmp_path / "link"), str(own), "would be replaced")
    assert {path.name: path.read_bytes() for path in own.parent.iterdir()} == before


def test_a_rater_that_an_output_would_replace_is_refused(tmp_path, table):
    rater = tmp_path / "out/sizes.json"
    rater.parent.mkdir()
    rater.write_text("{}")
    refused(run("cohort", table, "--rater", rater, "--protocol", "miccai2008", "--out", rater.parent), "would be replaced")
    assert rater.read_text() == "{}"


def test_tables_of_another_protocol_stay(tmp_path, table):
    first = run("cohort", table, "--protocol", "isbi2015", "--out", tmp_path / "out")
    assert first.exit_code == 0, first.output
    before = (tmp_path / "out/measures.tsv").read_bytes()
    refused(run("cohort", table, "--protocol", "wmh2017", "--out", tmp_path / "out"), "holds measures under isbi2015")
    assert (tmp_path / "out/measures.tsv").read_bytes() == before
    assert run("cohort", table, "--protocol", "isbi2015", "--out", tmp_path / "out").exit_code == 0


def test_a_table_beside_its_outputs_stays(table):
    before = table.read_bytes()
    result = run("cohort", table, "--out", table.parent)
    assert result.exit_code == 0, result.output
    assert table.read_bytes() == before and (table.parent / "measures.tsv").is_file()


def test_no_output_has_the_name_of_one_of_another_command(tmp_path, table):
    run("cohort", table, "--out", tmp_path / "out")
    names = {path.stem for path in (tmp_path / "out").iterdir()}
    assert names == {"measures", "sizes", "agreement"} and not names & {"arms", "summary", "scans", "cohort", "pairs"}


def test_one_rater_serves_every_pair_of_a_table(tmp_path, table):
    """And the help says so."""
    pair = ("--prediction", table.parent / "p1.nii.gz", "--reference", table.parent / "r1.nii.gz", "--protocol", "miccai2008")
    (tmp_path / "rater.json").write_text(run(*pair).stdout)
    rated = ("--protocol", "miccai2008", "--rater", tmp_path / "rater.json")
    assert run("cohort", table, *rated, "--out", tmp_path / "out").exit_code == 0
    scores = read_tsv(tmp_path / "out/measures.tsv").set_index("id")["score_lesion_recall"]
    assert float(scores["scan1"]) == pytest.approx(90) and scores["scan0"] != "n/a" and scores["scan0"] != scores["scan1"]
    assert "all pairs are held against this one file" in " ".join(run("cohort", "--help").output.split())


def test_a_pair_of_other_grids_or_labels_is_refused_by_name(tmp_path, table):
    write_volume(2 * noise(1).astype(np.uint8), AFFINE, table.parent / "p2.nii.gz")
    refused(run("cohort", table, "--out", tmp_path / "out"), "p2.nii.gz", "value 2")
    save(table.parent / "p2.nii.gz", np.zeros((3, 3, 3), bool))
    refused(run("cohort", table, "--out", tmp_path / "out"), "p2.nii.gz", "same grid")

"""Laws of CarveMix: the region is the donor's, all else the recipient's, labels likewise, and nothing lies outside the brain."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.assemble.mix import carved_region, draw_mix, paste, signed_distance_mm
from lesionforge.cli import main
from lesionforge.images import Prepared, Scan, label_lesions, read_json, write_json, write_volume

SHAPE = (24, 24, 24)


@pytest.fixture
def lesion() -> np.ndarray:
    """A large and a small ball."""
    place = np.indices(SHAPE)
    return (((place - 9) ** 2).sum(axis=0) <= 4**2) | (((place - 18) ** 2).sum(axis=0) <= 1)


def test_the_reach_is_the_published_mixture_of_two_uniforms() -> None:
    rng = np.random.default_rng(0)
    reach = np.array([draw_mix("sub-mix0001", "a", "b", 1, "0", rng).reach for _ in range(4000)])
    below, above = reach[reach < 0], reach[reach >= 0]
    assert below.size == pytest.approx(2000, abs=150)
    assert reach.min() >= -0.5 and reach.max() <= 1
    assert (below.mean(), above.mean()) == pytest.approx((-0.25, 0.5), abs=0.02)
    assert (below.std(), above.std()) == pytest.approx((0.5 / 12**0.5, 1 / 12**0.5), abs=0.02)


def test_the_distance_is_signed_and_in_mm(lesion: np.ndarray) -> None:
    distance = signed_distance_mm(lesion, 2.0)
    assert np.array_equal(distance < 0, lesion) and np.abs(distance).min() == 2
    assert distance[9, 9, 9] == distance.min() < -8


def test_the_region_grows_with_the_reach_from_the_depth_of_the_lesions_to_around_them(lesion: np.ndarray) -> None:
    allowed = np.ones(SHAPE, bool)
    regions = [carved_region(lesion, allowed, reach, 1.0) for reach in (-0.5, -0.3, 0, 0.3, 0.6, 1)]
    assert np.array_equal(regions[2], lesion)
    assert all((small <= large).all() for small, large in pairwise(regions))
    assert regions[0].any() and not regions[0][18, 18, 18], "as published, shallow lesions are not carved below 0"
    assert regions[-1].sum() > 2 * lesion.sum()
    assert np.array_equal(carved_region(lesion, allowed, 0.6, 1.0), carved_region(lesion, allowed, 0.6, 3.0))
    allowed[:, :9] = False
    assert np.array_equal(carved_region(lesion, allowed, 0.6, 1.0), regions[4] & allowed)


def test_inside_the_region_is_the_donor_and_outside_the_recipient(lesion: np.ndarray, rng: np.random.Generator) -> None:
    donor, recipient = ({name: rng.normal(size=SHAPE) for name in ("T1w", "FLAIR", "T2w")} for _ in range(2))
    own = np.roll(lesion, 3, axis=0)
    region = carved_region(lesion, np.ones(SHAPE, bool), 0.5, 1.0)
    images, label = paste(region, (donor, lesion), (recipient, own))
    for name in donor:
        assert np.array_equal(images[name][region], donor[name][region])
        assert np.array_equal(images[name][~region], recipient[name][~region])
    assert np.array_equal(label, (lesion & region) | (own & ~region))
    empty = np.zeros(SHAPE, bool)
    assert np.array_equal(paste(empty, (donor, lesion), (recipient, own))[1], own)


@dataclass
class Case:
    """Folders of a donor and a canvas, and how the command goes with them."""

    root: Path
    donor: Path
    canvas: Path
    pair: Path

    def mix(self, *options: str, **given: Path) -> tuple[int, str]:
        """Exit code and output of the command."""
        folders = {"donor": self.donor, "canvas": self.canvas, "pair": self.pair} | given
        named = [word for name, folder in folders.items() for word in (f"--{name.replace('_', '-')}", str(folder))]
        fixed = ["assemble", "mix", "--id", "sub-mix0001", "--seed", "1", "--out", str(self.root / "assemble")]
        result = CliRunner().invoke(main, [*fixed, *named, *options])
        return result.exit_code, result.output

    def made(self) -> Prepared:
        return Prepared.open(self.root / "assemble/sub-mix0001")

    def record(self) -> dict:
        return read_json(self.made().folder / "sub-mix0001_desc-provenance.json")


def write_pair(donor: Path, canvas: Path, root: Path, change: Callable[[Scan], None] = lambda scan: None) -> Path:
    """A pair folder in which the donor lies where it lay, on the grid it had."""
    scan = Prepared.open(donor).read()
    change(scan)
    folder = root / "register" / f"{donor.name}_to_{canvas.name}"
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{donor.name}_space-{canvas.name.replace('-', '')}"
    write_volume(label_lesions(scan.lesion)[0].astype(np.uint16), scan.affine, folder / f"{stem}_label-lesion_dseg.nii.gz")
    for suffix, image in scan.images().items():
        write_volume(image, scan.affine, folder / f"{stem}_desc-preproc_{suffix}.nii.gz")
    record = {"donor": donor.name, "canvas": canvas.name, "method": "composed"}
    write_json(record, folder / f"{folder.name}_desc-pair.json")
    return folder


@pytest.fixture
def case(write_blob_scan, tmp_path: Path) -> Case:
    donor, canvas = (write_blob_scan(tmp_path / "prepare", name, seed=seed) for name, seed in (("sub-p0", 1), ("sub-p1", 2)))
    return Case(tmp_path, donor, canvas, write_pair(donor, canvas, tmp_path))


def write_levels(canvas: Path, root: Path) -> Path:
    """A levels folder whose filled scan is the canvas less one."""
    prepared = Prepared.open(canvas)
    scan = prepared.read()
    folder = root / "levels" / canvas.name
    folder.mkdir(parents=True)
    for suffix, image in scan.images().items():
        write_volume((image - 1) * scan.brain, scan.affine, folder / f"{canvas.name}_{prepared.grid}_desc-filled_{suffix}.nii.gz")
    write_json({"id": canvas.name, "seed": 7}, folder / f"{canvas.name}_desc-levels.json")
    return folder


def test_an_annotated_recipient_keeps_its_lesions_and_is_not_filled(case: Case) -> None:
    code, output = case.mix(canvas_levels=write_levels(case.canvas, case.root))
    assert code == 0, output
    donor, canvas, mixed = (prepared.read() for prepared in (Prepared.open(case.donor), Prepared.open(case.canvas), case.made()))
    record = case.record()
    changed = mixed.flair != canvas.flair
    assert np.array_equal(mixed.flair[changed], donor.flair[changed]) and changed.any()
    assert changed.sum() * 8 / 1000 == pytest.approx(record["carved_volume_ml"])
    assert np.array_equal(mixed.t1w != canvas.t1w, changed)
    assert np.array_equal(mixed.lesion, np.where(changed, donor.lesion, canvas.lesion))
    assert mixed.lesion.sum() * 8 / 1000 == pytest.approx(record["lesion_volume_ml"])
    assert (mixed.tissues[mixed.lesion] == 3).all()
    assert (record["donor"], record["canvas"], record["canvas_filled"]) == ("sub-p0", "sub-p1", False)
    assert record["parameters"] == read_json(case.made().folder / "sub-mix0001_desc-draw.json")


def test_a_recipient_without_a_mask_is_filled(case: Case, write_blob_scan) -> None:
    canvas = write_blob_scan(case.root / "prepare", "sub-p3", seed=3, with_mask=False)
    pair = write_pair(case.donor, canvas, case.root)
    code, output = case.mix(canvas=canvas, pair=pair, canvas_levels=write_levels(canvas, case.root))
    assert code == 0, output
    donor, recipient, mixed = (Prepared.open(folder).read() for folder in (case.donor, canvas, case.made().folder))
    from_donor = mixed.brain & (mixed.flair == donor.flair)
    assert np.array_equal(mixed.flair, np.where(from_donor, donor.flair, (recipient.flair - 1) * recipient.brain))
    assert from_donor.sum() * 8 / 1000 == pytest.approx(case.record()["carved_volume_ml"])
    assert mixed.lesion.sum() * 8 / 1000 == pytest.approx(case.record()["pasted_lesion_volume_ml"])
    assert (case.record()["canvas_filled"], case.record()["canvas_fill_seed"]) == (True, 7)


@pytest.mark.parametrize("with_mask", [True, False])
def test_further_contrasts_are_pasted_and_filled_as_the_flair_is(case: Case, write_blob_scan, add_contrast, with_mask) -> None:
    canvas = write_blob_scan(case.root / "prepare", "sub-p4", seed=4, with_mask=with_mask)
    add_contrast(canvas, "T2w")
    given = {"canvas": canvas, "canvas_levels": write_levels(canvas, case.root)}
    assert refused(case.mix(pair=write_pair(case.donor, canvas, case.root), **given), "sub-p0: has T1w, FLAIR but no T2w")
    add_contrast(case.donor, "T2w")
    code, output = case.mix(pair=write_pair(case.donor, canvas, case.root), **given)
    assert code == 0, output
    donor, recipient, mixed = (Prepared.open(folder).read() for folder in (case.donor, canvas, case.made().folder))
    assert mixed.contrasts == ("T1w", "FLAIR", "T2w")
    filled = 0 if with_mask else 1
    pasted = mixed.brain & (mixed.flair == donor.flair)
    kept = (recipient.further["T2w"] - filled) * recipient.brain
    assert np.array_equal(mixed.further["T2w"], np.where(pasted, donor.further["T2w"], kept)) and pasted.any()


def test_contrasts_of_the_donor_alone_are_left_out(case: Case, add_contrast) -> None:
    assert case.mix()[0] == 0
    files = {path.name: path.read_bytes() for path in case.made().folder.iterdir()}
    add_contrast(case.donor, "T2w")
    assert case.mix(pair=write_pair(case.donor, case.canvas, case.root))[0] == 0
    assert files == {path.name: path.read_bytes() for path in case.made().folder.iterdir()}


def test_nothing_is_pasted_outside_the_brain_of_either(case: Case) -> None:
    def half(scan: Scan) -> None:
        for image in (scan.t1w, scan.flair):
            image[20:][image[20:] == 0] = 9
            image[:20] = 0

    write_pair(case.donor, case.canvas, case.root, half)
    code, output = case.mix()
    assert code == 0, output
    canvas, mixed = Prepared.open(case.canvas).read(), case.made().read()
    assert not mixed.flair[~canvas.brain].any() and not mixed.lesion[~canvas.brain].any()
    assert np.array_equal(mixed.flair[:20], canvas.flair[:20]) and np.array_equal(mixed.lesion[:20], canvas.lesion[:20])
    assert not np.array_equal(mixed.flair, canvas.flair)


def test_the_same_command_gives_the_same_bytes(case: Case) -> None:
    written = []
    for _ in range(2):
        assert case.mix()[0] == 0
        written.append({path.name: path.read_bytes() for path in case.made().folder.iterdir()})
    assert written[0] == written[1]


def test_what_does_not_belong_together_is_refused(case: Case, write_blob_scan, tmp_path: Path) -> None:
    other = write_blob_scan(tmp_path / "prepare", "sub-p2", seed=3)
    unannotated = write_blob_scan(tmp_path / "prepare", "sub-p3", seed=3, with_mask=False)
    levels = write_levels(unannotated, tmp_path)
    assert refused(case.mix(canvas=case.donor), "is donor and canvas at once")
    assert refused(case.mix(donor=other), "registered with donor sub-p0")
    assert refused(case.mix(canvas=other), "registered with canvas sub-p1")
    assert refused(case.mix(donor=unannotated), "has no lesion mask")
    pair = write_pair(case.donor, unannotated, tmp_path)
    (levels / "sub-p3_desc-levels.json").unlink()
    write_json({"id": "sub-p9", "seed": 1}, levels / "sub-p9_desc-levels.json")
    assert refused(case.mix(canvas=unannotated, pair=pair, canvas_levels=levels), "belongs to sub-p9, not sub-p3")
    assert refused(case.mix("--id", "sub-cla0001"), "is no id of such a scan")


def test_a_pair_without_a_lesion_or_on_another_grid_is_refused(case: Case) -> None:
    def no_lesion(scan: Scan) -> None:
        scan.lesion[:] = False

    def moved(scan: Scan) -> None:
        scan.affine[0, 3] += 1

    write_pair(case.donor, case.canvas, case.root, no_lesion)
    assert refused(case.mix(), "none of the donor's lesions lies in the brain of sub-p1")
    write_pair(case.donor, case.canvas, case.root, moved)
    assert refused(case.mix(), "lies on another grid")


def refused(answer: tuple[int, str], words: str) -> bool:
    code, output = answer
    assert words in output
    return code == 2 and output.count("\n") == 1

"""Accuracy and cost of `prepare` on the open_ms scans and on phantoms: what `make bench-prepare` prints.

Needs the data set as shared (raw sessions, their references, stripped scans with consensus lesions). Scans that were
prepared by an earlier, interrupted run are not prepared again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from lesionforge.images import Prepared, find_image, read_mask, read_volume, resample, working_grid, world_matrix
from lesionforge.images.deform import dice
from lesionforge.images.prepared import native_brain_mask_name
from lesionforge.prepare import align, strip

COMMAND = [str(Path(sys.executable).parent / "lesionforge")]
DISTURBANCES = 10
PAIRS = 6
MAX_TURN_DEGREES, MAX_SHIFT_MM = 20, 20
GM, WM = 2, 3


@dataclass(frozen=True)
class Session:
    """One scan of the data set."""

    scan_id: str
    t1w: Path
    flair: Path


def sessions_in(folder: Path, pattern: str) -> list[Session]:
    """The scans whose T1w a pattern finds, by name."""
    found = []
    for t1w in sorted(folder.glob(pattern)):
        scan_id = t1w.name.split("_space-")[0].removesuffix("_T1w.nii.gz")
        found.append(Session(scan_id, t1w, t1w.with_name(t1w.name.replace("_T1w.nii.gz", "_FLAIR.nii.gz"))))
    return found


def measured(arguments: list[str]) -> dict[str, float]:
    """Run a command of lesionforge; its wall time, processor time and largest memory."""
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"lesionforge {' '.join(arguments)} failed")
    wall = time.perf_counter() - start
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "memory_gb": usage.ru_maxrss / 2**20}


def prepare(session: Session, out: Path, brain_mask: str | None = None, lesion_mask: Path | None = None) -> Path:
    """Prepare a scan step by step as the pipeline does, noting the cost of each step; its prepared folder."""
    folder = out / "prepare" / session.scan_id
    notes = out / "cost" / f"{session.scan_id}.json"
    if not notes.is_file():
        scan = ["--id", session.scan_id, "--t1w", str(session.t1w), "--flair", str(session.flair)]
        stripped, aligned = out / "strip" / session.scan_id, out / "align" / session.scan_id
        mask = ["--brain-mask", brain_mask] if brain_mask else []
        lesions = ["--lesion-mask", str(lesion_mask)] if lesion_mask else []
        cost = {
            "strip": measured(["prepare", "strip", *scan, *mask, "--out", str(out / "strip")]),
            "align": measured(["prepare", "align", *scan, *lesions, "--stripped", str(stripped), "--out", str(out / "align")]),
        }
        tissues = ["prepare", "tissues", "--id", session.scan_id, "--stripped", str(stripped), "--aligned", str(aligned)]
        cost["tissues"] = measured([*tissues, "--out", str(out / "prepare")])
        notes.parent.mkdir(exist_ok=True)
        notes.write_text(json.dumps(cost))
    return folder


def table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    for line in (header, ["---"] * len(header), *rows):
        click.echo("| " + " | ".join(line) + " |")
    click.echo()


def distances_mm(found: np.ndarray, truth: np.ndarray, points: np.ndarray) -> float:
    """Mean distance between where two 4 x 4 matrices take points [n, 3], mm."""
    ends = (nib.affines.apply_affine(matrix, points) for matrix in (found, truth))
    return float(np.linalg.norm(next(ends) - next(ends), axis=1).mean())


def disturbances(centre: np.ndarray) -> Iterator[np.ndarray]:
    """Seeded rigid movements about a point: turns about any axis and shifts in any direction, 4 x 4, RAS."""
    for seed in range(DISTURBANCES):
        rng = np.random.default_rng(seed)
        axis, direction = rng.normal(size=(2, 3))
        matrix = np.eye(4)
        turn = np.deg2rad(rng.uniform(0, MAX_TURN_DEGREES)) * axis / np.linalg.norm(axis)
        matrix[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
        shift = rng.uniform(0, MAX_SHIFT_MM) * direction / np.linalg.norm(direction)
        matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift
        yield matrix


def disturbed_distances_mm(session: Session, brain: align.Volume, truth: np.ndarray, points: np.ndarray) -> list[float]:
    """Registration errors after the FLAIR's header was moved, one for each disturbance."""
    t1w, (flair, flair_affine) = read_volume(session.t1w), read_volume(session.flair)
    grid = working_grid(t1w[0].shape, t1w[1], align.COARSE_MM)
    around = strip.dilated(resample(*brain, grid) >= 0.5, 6, align.COARSE_MM)
    head = (resample(*t1w, grid), grid[1])
    found = []
    for moved in disturbances(nib.affines.apply_affine(flair_affine, np.array(flair.shape) / 2)):
        with tempfile.TemporaryDirectory() as folder:
            path = align.rigid_between(head, t1w, (flair, moved @ flair_affine), (around, grid[1]), f"{folder}/")
            found.append(distances_mm(np.linalg.inv(moved) @ world_matrix(path), truth, points))
    return found


def white_matter_peak(image: np.ndarray, tissues: np.ndarray) -> float:
    """The mode of an image in white matter: of its histogram, smoothed over 0.05."""
    counts, edges = np.histogram(image[tissues == WM], bins=600, range=(-3, 3))
    return float(edges[np.convolve(counts, np.ones(5), mode="same").argmax()] + 0.005)


def cost_row(scan_id: str, out: Path) -> list[str]:
    """Seconds of each step, of all, processor seconds, largest memory."""
    cost = json.loads((out / "cost" / f"{scan_id}.json").read_text())
    walls = [step["wall_s"] for step in cost.values()]
    processor = sum(step["cpu_s"] for step in cost.values())
    memory = max(step["memory_gb"] for step in cost.values())
    return [scan_id, *(f"{wall:.0f}" for wall in walls), f"{sum(walls):.0f}", f"{processor:.0f}", f"{memory:.1f}"]


def raw_sessions(data: Path, out: Path) -> list[str]:
    """Tables over the raw sessions against their references; the prepared folders."""
    accuracy, folders, peaks = [], [], {}
    for session in sessions_in(data, "sub-*/ses-*/anat/*_T1w.nii.gz"):
        folder = prepare(session, out)
        folders.append(str(folder))
        references = data / "derivatives" / "reference" / session.scan_id.replace("_", "/") / "anat"
        found, _ = read_mask(find_image(folder, native_brain_mask_name("FLAIR")))
        reference, _ = read_mask(references / f"{session.scan_id}_space-FLAIR_desc-brain_mask.nii.gz")
        # The file brings T1w images onto FLAIR grids: it leads from FLAIR points to T1w points.
        truth = np.linalg.inv(world_matrix(references / f"{session.scan_id}_from-T1w_to-FLAIR_desc-reference_xfm.txt"))
        scan = Prepared.open(folder).read()
        points = nib.affines.apply_affine(scan.affine, np.argwhere(scan.brain)[::500])
        rigid = world_matrix(find_image(folder, "from-FLAIR_to-T1w_mode-image_xfm.mat"))
        disturbed = disturbed_distances_mm(session, (scan.brain, scan.affine), truth, points)
        shares = [100 * float((scan.tissues == label)[scan.brain].mean()) for label in (1, GM, WM)]
        spreads = [(image, image[scan.brain].std()) for image in (scan.t1w, scan.flair)]
        peaks[session.scan_id] = [white_matter_peak(image, scan.tissues) / spread for image, spread in spreads]
        accuracy.append(
            [
                session.scan_id,
                f"{dice(found, reference):.4f}",
                f"{distances_mm(rigid, truth, points):.2f}",
                f"{np.mean(disturbed):.2f} ({np.max(disturbed):.2f})",
                " / ".join(f"{share:.0f}" for share in shares),
                " / ".join(f"{peak:.3f}" for peak in peaks[session.scan_id]),
            ]
        )
        click.echo(f"{session.scan_id}: measured", err=True)
    mean = np.mean([float(row[1]) for row in accuracy])
    accuracy.append(["mean", f"{mean:.4f}", "", "", "", ""])
    header = ["scan", "brain Dice on the FLAIR grid", "FLAIR to T1w, mm", f"after {DISTURBANCES} disturbances: mean (worst), mm"]
    table([*header, "CSF / GM / WM, % of brain", "WM peak T1w / FLAIR, brain SD"], accuracy)
    for first, second in zip(peaks, list(peaks)[1:], strict=False):
        if first.split("_")[0] == second.split("_")[0]:
            apart = " and ".join(f"{abs(a - b):.3f}" for a, b in zip(peaks[first], peaks[second], strict=True))
            click.echo(f"WM peaks of {first} and {second} differ by {apart} (T1w and FLAIR, in brain SD).\n")
    return folders


def consensus_lesions(data: Path, out: Path) -> list[str]:
    """Where the tissues put the lesions that three raters agreed on, though they never see their mask; the prepared folders."""
    rows, folders = [], []
    for session in sessions_in(data, "derivatives/lit/sub-*/anat/*_T1w.nii.gz"):
        folder = prepare(session, out, "stripped")
        folders.append(str(folder))
        scan = Prepared.open(folder).read()
        lesion, affine = read_mask(next(session.t1w.parent.glob("*_label-lesion_mask.nii.gz")))
        lesion = resample(lesion, affine, (scan.brain.shape, scan.affine)) >= 0.5
        shares = [f"{100 * float((scan.tissues[lesion] == label).mean()):.1f}" for label in (WM, GM, 1, 0)]
        brain = [f"{100 * float((scan.tissues == label)[scan.brain].mean()):.0f}" for label in (1, GM, WM)]
        rows.append([session.scan_id, f"{int(lesion.sum())}", *shares, " / ".join(brain)])
    header = ["scan", "consensus lesion voxels", "in WM, %", "in GM, %", "in CSF, %", "outside, %", "CSF / GM / WM, % of brain"]
    table(header, rows)
    return folders


def phantoms(out: Path) -> None:
    """Tissues and brain of phantoms, whose truth is known."""
    cohort = out / "phantom"
    if not cohort.is_dir():
        measured(["phantom", str(cohort), "--patients", "1", "--healthy", "1", "--voxel-mm", "1", "--seed", "5"])
    rows = []
    for session in sessions_in(cohort, "sub-*/anat/*_T1w.nii.gz"):
        scan = Prepared.open(prepare(session, out)).read()
        truth = cohort / "derivatives" / "phantom" / session.scan_id / "anat"
        tissues, affine = read_volume(truth / f"{session.scan_id}_dseg.nii.gz")
        tissues = resample(tissues, affine, (scan.brain.shape, scan.affine), nearest=True)
        overlaps = [dice(scan.brain, tissues > 0), *(dice(scan.tissues == label, tissues == label) for label in (1, GM, WM))]
        rows.append([session.scan_id, *(f"{overlap:.3f}" for overlap in overlaps)])
    table(["phantom, 1 mm", "brain Dice", "CSF", "GM", "WM"], rows)


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for prepared scans and costs.")
def main(data: Path, out: Path) -> None:
    """Print accuracy and cost of `prepare` on the open_ms set in DATA, as Markdown tables."""
    data, out = data.resolve(), out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    folders = raw_sessions(data, out)
    folders += consensus_lesions(data, out)
    phantoms(out)
    header = ["scan", "STRIP, s", "ALIGN, s", "TISSUES, s", "all, s", "processor, s", "memory, GB"]
    table(header, [cost_row(notes.stem, out) for notes in sorted((out / "cost").glob("*.json"))])
    register = Path(__file__).with_name("register.py")
    subprocess.run([sys.executable, str(register), "--prepared", *folders, "--pairs", str(PAIRS)], check=True)


if __name__ == "__main__":
    main()

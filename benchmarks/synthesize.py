"""How real the generator's lesions are, on a patient it never saw: what `make bench-synthesize` prints.

Needs the open_ms set as shared. The generator learns from sub-cs07 and the raw sessions; sub-cs19 is painted anew from its own
levels and compared with itself. Scans that were prepared and generators that were trained by an earlier run are not made again.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from prepare import measured, prepare, sessions_in, table
from scipy import ndimage
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lesionforge import nets
from lesionforge.images import Prepared, Scan, label_lesions, read_volume
from lesionforge.synthesize.generator_folder import read_generator_card
from lesionforge.synthesize.levels import LEVEL_COUNT, WHITE_MATTER
from lesionforge.synthesize.paint import generate
from lesionforge.synthesize.stage import SUFFIXES, Levels

TEST = "sub-cs19"
RING_VOXELS = 3
PATCH_RADIUS = 4
PATCHES = 2000
CONFIGURATIONS = ("lesionforge", "salem2019")
METHODS = (*CONFIGURATIONS, "band means", "filled")
Images = dict[str, np.ndarray]


def images_of(scan: Scan) -> Images:
    """The contrasts of a scan by name."""
    return {name: getattr(scan, name) for name in SUFFIXES}


def band_means(patients: list[tuple[Prepared, Levels]]) -> dict[str, np.ndarray]:
    """Mean intensity of each level (0..8) over the training patients, by contrast."""
    total = {name: np.zeros(LEVEL_COUNT + 1) for name in SUFFIXES}
    count = np.zeros(LEVEL_COUNT + 1)
    for prepared, found in patients:
        levels = read_volume(found.levels)[0].astype(int)
        count += np.bincount(levels.ravel(), minlength=LEVEL_COUNT + 1)
        for name, image in images_of(prepared.read()).items():
            total[name] += np.bincount(levels.ravel(), image.ravel(), minlength=LEVEL_COUNT + 1)
    return {name: sums / np.maximum(count, 1) for name, sums in total.items()}


def painted_by(generator: Path, scan: Scan, filled: Images, levels: np.ndarray) -> Images:
    """The test patient's filled scan with its own levels painted by a generator, the filled scan elsewhere."""
    card, config = read_generator_card(generator, tuple(SUFFIXES))
    nets.set_up(card["seed"])
    wanted = levels > 0
    made = generate(nets.load_model(generator, "generator"), config, list(filled.values()), scan.brain, levels, wanted)
    return {name: np.where(wanted, image, filled[name]) for name, image in zip(filled, made, strict=True)}


def errors(real: np.ndarray, made: np.ndarray, where: np.ndarray) -> tuple[float, float, float]:
    """MAE, PSNR in dB (peak: the range of the real scan's 0.1 to 99.9 percentile) and mean SSIM of the voxels of a mask."""
    peak = float(np.subtract(*np.percentile(real[real != 0], (99.9, 0.1))))
    difference = (made - real)[where]
    _, similarity = structural_similarity(real, made, data_range=peak, full=True)
    return (
        float(np.abs(difference).mean()),
        float(10 * np.log10(peak**2 / (difference**2).mean())),
        float(similarity[where].mean()),
    )


def error_rows(scan: Scan, made: dict[str, Images]) -> list[list[str]]:
    """Errors inside the consensus lesions and in a ring around them, for each contrast and method."""
    ring = ndimage.binary_dilation(scan.lesion, iterations=RING_VOXELS) & ~scan.lesion & scan.brain
    rows = []
    for name, real in images_of(scan).items():
        for place, where in (("lesions", scan.lesion), ("ring", ring)):
            for method in METHODS:
                mae, psnr, ssim = errors(real, made[method][name], where)
                rows.append([SUFFIXES[name], place, method, f"{mae:.3f}", f"{psnr:.1f}", f"{ssim:.3f}"])
    return rows


def contrast_rows(scan: Scan, made: dict[str, Images]) -> list[list[str]]:
    """Lesion against surrounding white matter: the 10th, 50th and 90th percentile over lesions, real and made."""
    numbers, count = label_lesions(scan.lesion)
    around = ndimage.binary_dilation(scan.lesion, iterations=RING_VOXELS) & (scan.tissues == WHITE_MATTER) & ~scan.lesion
    nearest = ndimage.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    owner = np.where(around, numbers[tuple(nearest)], 0)
    both = [n for n in range(1, count + 1) if (owner == n).any()]
    rows = []
    for name in SUFFIXES:
        for method, images in {"real": images_of(scan), **made}.items():
            image = images[name]
            apart = ndimage.mean(image, numbers, both) - ndimage.mean(image, owner, both)
            rows.append([SUFFIXES[name], method, *(f"{value:.2f}" for value in np.percentile(apart, (10, 50, 90)))])
    return rows


def stripes(image: np.ndarray, lesion: np.ndarray) -> float:
    """Mean absolute step between slices over that within slices, inside lesions; 1 where no direction stands out."""
    steps = [np.abs(np.diff(image, axis=axis)) for axis in range(3)]
    inside = [
        (lesion & np.roll(lesion, -1, axis))[tuple(slice(0, -1 if a == axis else None) for a in range(3))] for axis in range(3)
    ]
    means = [float(step[where].mean()) for step, where in zip(steps, inside, strict=True)]
    return means[2] / (0.5 * (means[0] + means[1]))


def patches(images: Images, centres: np.ndarray) -> np.ndarray:
    """Cubes of all contrasts around voxels, [voxels, features]."""
    window = [np.arange(-PATCH_RADIUS, PATCH_RADIUS + 1)] * 3
    offsets = np.stack(np.meshgrid(*window, indexing="ij")).reshape(3, -1)
    places = tuple((centres[:, :, None] + offsets[None]).transpose(1, 0, 2))
    return np.concatenate([image[places] for image in images.values()], axis=1)


def told_apart(scan: Scan, made: Images) -> float:
    """AUC of a logistic regression on 50 principal components that tells made lesion patches from real ones, by lesion."""
    numbers, _ = label_lesions(scan.lesion)
    voxels = np.argwhere(scan.lesion)
    centres = np.random.default_rng(1).permutation(voxels)[:PATCHES]
    groups = np.tile(numbers[tuple(centres.T)], 2)
    features = np.concatenate([patches(images_of(scan), centres), patches(made, centres)])
    truth = np.repeat([0, 1], len(centres))
    classifier = make_pipeline(StandardScaler(), PCA(50, random_state=1), LogisticRegression(max_iter=1000))
    guess = cross_val_predict(classifier, features, truth, groups=groups, cv=GroupKFold(5), method="predict_proba")[:, 1]
    return float(roc_auc_score(truth, guess))


def train(name: str, patients: list[tuple[Prepared, Levels]], out: Path, width: int, epochs: int, tiles: int) -> float:
    """Train one configuration on the patients unless an earlier run did; seconds it took, NaN if it was there."""
    if (out / name).is_dir():
        return float("nan")
    folders = [
        part for prepared, levels in patients for part in ("--prepared", str(prepared.folder), "--levels", str(levels.folder))
    ]
    limits = ["--width", str(width), "--epochs", str(epochs), "--tiles-per-epoch", str(tiles)]
    return measured(["synthesize", "train-generator", *folders, "--generator", name, *limits, "--out", str(out / name)])["wall_s"]


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for prepared scans and generators.")
@click.option("--width", default=16, show_default=True)
@click.option("--epochs", default=10, show_default=True)
@click.option("--tiles", default=1500, show_default=True, help="Tiles of an epoch, the same for each configuration.")
def main(data: Path, out: Path, width: int, epochs: int, tiles: int) -> None:
    """Print how real synthetic lesions are on the open_ms set in DATA, as Markdown tables."""
    data, out = data.resolve(), out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    folders = [prepare(session, out) for session in sessions_in(data, "sub-*/ses-*/anat/*_T1w.nii.gz")]
    for session in sessions_in(data, "derivatives/lit/sub-*/anat/*_T1w.nii.gz"):
        mask = next(session.t1w.parent.glob("*_label-lesion_mask.nii.gz"))
        folders.append(prepare(session, out, "stripped", mask))
    patients = []
    for folder in folders:
        if not (out / "levels" / folder.name).is_dir():
            measured(["synthesize", "levels", "--prepared", str(folder), "--out", str(out / "levels")])
        patients.append((Prepared.open(folder), Levels.open(out / "levels" / folder.name)))
    training = [patient for patient in patients if patient[0].scan_id != TEST]
    ((prepared, found),) = (patient for patient in patients if patient[0].scan_id == TEST)
    seconds = {name: train(name, training, out, width, epochs, tiles) for name in CONFIGURATIONS}

    scan = prepared.read()
    filled = dict(zip(SUFFIXES, found.read_filled(), strict=True))
    levels = read_volume(found.levels)[0].astype(np.uint8)
    means = band_means(training)
    made = {name: painted_by(out / name, scan, filled, levels) for name in CONFIGURATIONS}
    made["band means"] = {name: np.where(levels > 0, means[name][levels], filled[name]) for name in SUFFIXES}
    made["filled"] = filled

    table(["contrast", "where", "method", "MAE", "PSNR, dB", "SSIM"], error_rows(scan, made))
    table(["contrast", "method", "10 %", "50 %", "90 % of lesions"], contrast_rows(scan, made))
    rows = [["real", "", *(f"{stripes(image, scan.lesion):.2f}" for image in images_of(scan).values()), ""]]
    for name in METHODS:
        steps = (f"{stripes(image, scan.lesion):.2f}" for image in made[name].values())
        rows.append([name, f"{told_apart(scan, made[name]):.2f}", *steps, f"{seconds.get(name, float('nan')):.0f}"])
    table(["method", "AUC against real patches", "stripes T1w", "stripes FLAIR", "training, s"], rows)


if __name__ == "__main__":
    main()

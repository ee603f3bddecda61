"""How real the generator's lesions are, on a patient it never saw: what `make bench-synthesize` prints and draws.

Needs the open_ms set as shared. The generators learn from sub-cs07 and the raw sessions; sub-cs19 is painted anew from its own
levels and compared with itself. Scans that were prepared and networks that were trained by an earlier run are not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import CascadeConfig
from lesionforge.evaluate.protocols import measure_pair
from lesionforge.images import Prepared, Scan, label_lesions, new_folder, read_tsv
from lesionforge.images.geometry import voxel_side_mm
from lesionforge.segment.cascade import found_lesions, lesion_probability
from lesionforge.segment.workflow import Cascade
from lesionforge.synthesize.generator_folder import read_generator_card
from lesionforge.synthesize.levels import ALWAYS, LEVEL_COUNT, PUBLISHED_LEVELS, SUFFIXES, WHITE_MATTER, Scale
from lesionforge.synthesize.library import hyperintensities
from lesionforge.synthesize.paint import SEAM_WIDTH_VOXELS, paint_lesions
from lesionforge.synthesize.stage import Levels
from lesionforge.train.fit import train_cascade
from lesionforge.train.loading import load_judges
from lesionforge.train.sampling import label_scan

TEST = "sub-cs19"
RING_VOXELS = 3
PATCH_RADIUS = 4
PATCHES = 2000
CONFIGURATIONS = ("lesionforge", "salem2019")
# Ours as it paints a mask without a scan: in the T1w, each level of the FLAIR at the level it mostly had in training.
FLAIR_ONLY = "lesionforge, from the FLAIR alone"
# The mean intensity of each band of the FLAIR, as published, and that of each contrast's own levels in their units.
BAND_MEANS, LEVEL_MEANS = "band means", "own level means"
METHODS = (CONFIGURATIONS[0], LEVEL_MEANS, FLAIR_ONLY, CONFIGURATIONS[1], BAND_MEANS, "filled")
CASCADE = CascadeConfig(epochs=10, steps_per_epoch=78)
Images = dict[str, np.ndarray]
Patients = Sequence[tuple[Prepared, Levels]]


@dataclass(frozen=True)
class Test:
    """The patient that no generator saw: its scan, filled images, levels inside its lesions, and scales."""

    scan: Scan
    filled: Images
    levels: Images
    scales: dict[str, Scale]

    @classmethod
    def read(cls, prepared: Prepared, found: Levels) -> Test:
        """Read a patient's prepared and levels folders."""
        scan = prepared.read()
        levels = {name: level * scan.lesion for name, level in found.read(scan).items()}
        return cls(scan, found.read_filled(scan), levels, found.scales)


def images_of(scan: Scan) -> Images:
    """The contrasts of a scan by name."""
    return {name: getattr(scan, name) for name in ALWAYS}


def published(contrast: str, levels: Images, scales: dict[str, Scale]) -> tuple[np.ndarray, Scale]:
    """The levels and units in which the published method knows a contrast: the FLAIR's bands, normalised intensities."""
    return np.minimum(levels["flair"], PUBLISHED_LEVELS), Scale(0.0, 1.0)


def own(contrast: str, levels: Images, scales: dict[str, Scale]) -> tuple[np.ndarray, Scale]:
    """The levels and units of a contrast in our configuration."""
    return levels[contrast], scales[contrast]


def mean_by_level(patients: Patients, known: Callable) -> dict[str, np.ndarray]:
    """Mean of each level (0..12) in the training patients' hyperintensities, by contrast; an empty one has its nearest's."""
    total = {name: np.zeros((2, LEVEL_COUNT + 1)) for name in ALWAYS}
    for prepared, found in patients:
        scan = prepared.read()
        levels = found.read(scan)
        inside = levels["flair"] > 0
        for name, sums in total.items():
            level, scale = known(name, levels, found.scales)
            units = scale.units(images_of(scan)[name][inside])
            sums += [np.bincount(level[inside], weights, LEVEL_COUNT + 1) for weights in (units, np.ones_like(units))]
    found = {}
    for name, (sums, count) in total.items():
        held = np.flatnonzero(count)
        nearest = held[np.abs(held[:, None] - np.arange(LEVEL_COUNT + 1)).argmin(axis=0)]
        found[name] = (sums / np.maximum(count, 1))[nearest]
    return found


def painted_with_means(patients: Patients, known: Callable, test: Test) -> Images:
    """The filled scan with each lesion voxel at the mean that its level has in the training patients."""
    means, made = mean_by_level(patients, known), {}
    for name, image in test.filled.items():
        level, scale = known(name, test.levels, test.scales)
        made[name] = np.where(test.scan.lesion, scale.intensities(means[name][level]), image)
    return made


def painted_by(generator: Path, test: Test, levels: Images) -> Images:
    """The lesions of the test patient painted by a generator onto its filled scan, as the pipeline paints."""
    card, config = read_generator_card(generator, ALWAYS)
    nets.set_up(card["seed"])
    network = nets.load_model(generator, "generator")
    lesion, images = test.scan.lesion, list(test.filled.values())
    made = paint_lesions(network, config, images, test.scan.brain, lesion, levels, test.scales)
    return dict(zip(test.filled, made, strict=True))


def levels_from_flair(generator: Path, levels: Images) -> Images:
    """The levels of the FLAIR, and in other contrasts those that mostly go with them."""
    typical = read_generator_card(generator, ALWAYS)[0]["typical_levels"]
    return {name: np.array(found, np.uint8)[levels["flair"]] for name, found in typical.items()} | {"flair": levels["flair"]}


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


def lesion_contrasts(scan: Scan, images: Images) -> Images:
    """Mean of each lesion minus that of the white matter around it, [lesions], by contrast."""
    numbers, count = label_lesions(scan.lesion)
    around = ndimage.binary_dilation(scan.lesion, iterations=RING_VOXELS) & (scan.tissues == WHITE_MATTER) & ~scan.lesion
    nearest = ndimage.distance_transform_edt(numbers == 0, return_distances=False, return_indices=True)
    owner = np.where(around, numbers[tuple(nearest)], 0)
    both = [n for n in range(1, count + 1) if (owner == n).any()]
    return {name: ndimage.mean(image, numbers, both) - ndimage.mean(image, owner, both) for name, image in images.items()}


def contrast_rows(apart: dict[str, Images]) -> list[list[str]]:
    """Lesion against surrounding white matter: the 10th, 50th and 90th percentile over lesions, real and made."""
    return [
        [SUFFIXES[name], method, *(f"{value:.2f}" for value in np.percentile(found[name], (10, 50, 90)))]
        for name in ALWAYS
        for method, found in apart.items()
    ]


def draw_contrasts(apart: dict[str, Images], path: Path) -> None:
    """The distributions of lesion contrasts, real and made, side by side."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(ALWAYS), figsize=(11, 4.2), constrained_layout=True)
    for axis, name in zip(axes, ALWAYS, strict=True):
        axis.violinplot([found[name] for found in apart.values()], showmedians=True)
        axis.axhline(np.median(apart["real"][name]), color="grey", linewidth=0.8)
        axis.set_xticks(range(1, len(apart) + 1), list(apart), rotation=30, ha="right")
        axis.set_title(f"{SUFFIXES[name]}: lesion minus white matter around it")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_examples(scan: Scan, made: dict[str, Images], path: Path, slices: int = 4) -> None:
    """Real and made axial slices around the slices with most lesion, each contrast a row."""
    import matplotlib.pyplot as plt

    volumes = {"real": images_of(scan), **made}
    load = np.count_nonzero(scan.lesion, axis=(0, 1))
    chosen = [int(part[load[part].argmax()]) for part in np.array_split(np.flatnonzero(load), slices)]
    box = tuple(slice(side.min() - 2, side.max() + 3) for side in np.nonzero(scan.brain.any(axis=2)))
    shape = (slices * len(ALWAYS), len(volumes) + 1)
    figure, axes = plt.subplots(*shape, figsize=(2.2 * shape[1], 2.6 * shape[0]), constrained_layout=True)
    for row, (z, name) in enumerate((z, name) for z in chosen for name in ALWAYS):
        limits = np.percentile(images_of(scan)[name][scan.brain], (1, 99.8))
        for column, (title, images) in enumerate((*volumes.items(), ("lesion mask", volumes["real"]))):
            axis = axes[row, column]
            axis.imshow(images[name][box[0], box[1], z].T, origin="lower", cmap="gray", vmin=limits[0], vmax=limits[1])
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title.replace(", ", ",\n"), fontsize=9)
        axes[row, -1].contour(scan.lesion[box[0], box[1], z].T, [0.5], colors="red", linewidths=0.6)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_training(out: Path, path: Path) -> None:
    """The loss of each configuration by epoch, training and validation."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(CONFIGURATIONS), figsize=(9, 3), constrained_layout=True)
    for axis, name in zip(axes, CONFIGURATIONS, strict=True):
        history = read_tsv(out / name / "history.tsv")
        for column, label in (("loss", "training"), ("val_loss", "validation")):
            axis.plot(history["epoch"].astype(int), history[column].astype(float), label=label)
        axis.set(title=name, xlabel="epoch", yscale="log")
        axis.legend()
    figure.savefig(path, dpi=90)
    plt.close(figure)


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


def train_segmenter(patients: Patients, out: Path) -> None:
    """A cascade that learns from the real scans of the training patients: lesions of a mask, else their hyperintensities."""
    if not out.is_dir():
        nets.set_up(1)
        scans = []
        for prepared, found in patients:
            scan = prepared.read()
            lesion = scan.lesion if prepared.lesion else hyperintensities(found.read(scan)["flair"], float(scan.affine[0, 0]))
            scans.append(label_scan(prepared.scan_id, replace(scan, lesion=lesion), CASCADE))
        models, _ = train_cascade(scans, [], CASCADE, 1, lambda line: click.echo(line, err=True))
        with new_folder(out) as folder:
            nets.save_models(folder, models, cascade_entries(CASCADE, 1.0))


def segmentation_row(method: str, cascade: Cascade, networks: dict, scan: Scan, images: Images) -> list[str]:
    """What the cascade finds in the consensus lesions of a scan and their seam; elsewhere all ways of painting are alike."""
    config = cascade.config
    near = ndimage.binary_dilation(scan.lesion, iterations=SEAM_WIDTH_VOXELS)
    probability = lesion_probability(
        networks, [images["t1w"], images["flair"]], scan.brain, config, voxel_side_mm(scan.affine), near
    )
    found = near & found_lesions(probability, replace(scan, flair=images["flair"]), config)[0]
    figures = measure_pair(found, scan.lesion, (1.0, 1.0, 1.0), 1.0, "ours").measures
    click.echo(f"{method}: segmented", err=True)
    values = (figures["dice"], figures["lesion_recall"], 1 - figures["lesion_precision"], figures["volume_predicted_ml"])
    return [method, *(f"{value:.3f}" for value in values[:3]), f"{values[3]:.1f}"]


def train(name: str, patients: Patients, out: Path, width: int, epochs: int, tiles: int) -> float:
    """Train one configuration on the patients unless an earlier run did as much; seconds it took, NaN if it was there."""
    if (out / name).is_dir():
        settings = read_generator_card(out / name, ALWAYS)[1]
        if (settings.width, settings.epochs, settings.tiles_per_epoch) == (width, epochs, tiles):
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
@click.option("--epochs", default=8, show_default=True)
@click.option("--tiles", default=1500, show_default=True, help="Tiles of an epoch, the same for each configuration.")
@click.option(
    "--cascade",
    "segmenter",
    type=click.Path(exists=True, path_type=Path),
    help="Model folder of the cascade that segments [default: one trained on the training scans].",
)
def main(data: Path, out: Path, width: int, epochs: int, tiles: int, segmenter: Path | None) -> None:
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
    if segmenter is None:
        segmenter = out / "cascade"
        train_segmenter(training, segmenter)
    cascade = Cascade.open(segmenter)

    test = Test.read(prepared, found)
    scan = test.scan
    made = {name: painted_by(out / name, test, test.levels) for name in CONFIGURATIONS}
    made[FLAIR_ONLY] = painted_by(out / CONFIGURATIONS[0], test, levels_from_flair(out / CONFIGURATIONS[0], test.levels))
    for method, known in ((BAND_MEANS, published), (LEVEL_MEANS, own)):
        made[method] = painted_with_means(training, known, test)
    made["filled"] = test.filled
    made = {method: made[method] for method in METHODS}

    table(["contrast", "where", "method", "MAE", "PSNR, dB", "SSIM"], error_rows(scan, made))
    apart = {method: lesion_contrasts(scan, images) for method, images in {"real": images_of(scan), **made}.items()}
    table(["contrast", "method", "10 %", "50 %", "90 % of lesions"], contrast_rows(apart))
    rows = [["real", "", *(f"{stripes(image, scan.lesion):.2f}" for image in images_of(scan).values()), ""]]
    for name in METHODS:
        steps = (f"{stripes(image, scan.lesion):.2f}" for image in made[name].values())
        rows.append([name, f"{told_apart(scan, made[name]):.2f}", *steps, f"{seconds.get(name, float('nan')):.0f}"])
    table(["method", "AUC against real patches", "stripes T1w", "stripes FLAIR", "training, s"], rows)
    nets.set_up(1)
    networks = load_judges(cascade.folder, cascade.config, cascade.contrasts)
    rows = [
        segmentation_row(method, cascade, networks, scan, images) for method, images in {"real": images_of(scan), **made}.items()
    ]
    table(["scan", "Dice", "lesion sensitivity", "lesion false discovery", "predicted, ml"], rows)
    draw_contrasts(apart, out / "contrasts.png")
    draw_training(out, out / "training.png")
    draw_examples(scan, made, out / "examples.png")
    click.echo(f"figures: {out}/contrasts.png, training.png, examples.png")


if __name__ == "__main__":
    main()

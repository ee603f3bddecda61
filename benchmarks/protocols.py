"""How far the named protocols are from the challenges' own programs, on real masks: prints a table for docs/methods.md.

Needs the open_ms set as shared, and those programs, which are not part of this project. Each pair of masks, written to a file
each, is given to PROGRAM PREDICTION REFERENCE, which prints the program's figures as one JSON object by our names (dice,
hd95_mm, ...; null where undefined), and to our protocol of that name. The masks of the set's library are predicted by
themselves, moved by a voxel, grown, thinned and with noise at their edge, and by those of the next patient, on their grid of
1 mm and under an oblique header of 0.958 x 0.958 x 3 mm.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import nibabel as nib
import numpy as np
from prepare import table
from scipy import ndimage

from lesionforge.evaluate.masks import Pair, evaluate_files, read_binary_mask
from lesionforge.evaluate.protocols import PROTOCOLS
from lesionforge.images import write_mask

OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-0.958, 0.958, 3.0]), np.array([12.3, -45.6, 78.9])
)


def predictions(mask: np.ndarray, following: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Masks [x, y, z] that miss a reference in different ways; `following` is another patient's."""
    yield np.roll(mask, 1, axis=0)
    yield ndimage.binary_dilation(mask)
    yield ndimage.binary_erosion(mask)
    edge = ndimage.binary_dilation(mask, iterations=2) & ~ndimage.binary_erosion(mask)
    yield mask ^ (edge & (rng.random(mask.shape) < 0.3))
    yield following


def pairs_in(data: Path, masks: int | None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(prediction, reference, affine) of every pair of so many masks, or all."""
    paths = sorted((data / "derivatives" / "lesion_masks").glob("*_mask.nii.gz"))[:masks]
    rng = np.random.default_rng(1)
    for number, path in enumerate(paths):
        mask, affine = read_binary_mask(path)
        following, _ = read_binary_mask(paths[(number + 1) % len(paths)])
        for kind, prediction in enumerate(predictions(mask, following, rng)):
            yield prediction, mask, OBLIQUE if (number + kind) % 2 else affine


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--program", "programs", multiple=True, required=True, metavar="PROTOCOL=PROGRAM", help="May be given again.")
@click.option("--masks", type=click.IntRange(2), help="Use so many masks of the library, five pairs each [default: all].")
def protocols(data: Path, programs: tuple[str, ...], masks: int | None) -> None:
    """Compare the protocols with PROGRAMs on the masks in DATA."""
    asked = dict(words.split("=", 1) for words in programs)
    if not asked.keys() <= PROTOCOLS.keys():
        raise click.BadParameter(f"a protocol is one of {', '.join(PROTOCOLS)}")
    differences: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        prediction, reference = Path(folder) / "prediction_mask.nii.gz", Path(folder) / "reference_mask.nii.gz"
        for predicted, referred, affine in pairs_in(data, masks):
            write_mask(predicted, affine, prediction, "A prediction")
            write_mask(referred, affine, reference, "A reference")
            for name, program in asked.items():
                said = subprocess.run([program, prediction, reference], check=True, capture_output=True, text=True).stdout
                ours = evaluate_files(Pair(prediction, reference), name).measures
                for measure, theirs in json.loads(said).items():
                    differences[name, measure].append(math.nan if theirs is None else abs(theirs - ours[measure]))
    rows = []
    for key, values in differences.items():
        known = [value for value in values if not math.isnan(value)]
        counts = [str(len(known)), str(len(values) - len(known))]
        rows.append([*key, *counts, f"{max(known, default=math.nan):.1e}", str(sum(value > 1e-6 for value in known))])
    table(["protocol", "measure", "pairs", "undefined in one", "largest difference", "pairs above 1e-6"], rows)


if __name__ == "__main__":
    protocols()

"""BIDS derivative names, and finding one file in a folder by its entities."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lesionforge.errors import InputError

# The contrasts of a scan, in the order in which they are always given; the first two are always there.
CONTRASTS = ("T1w", "FLAIR", "T2w", "PDw")
ALWAYS, FURTHER = CONTRASTS[:2], CONTRASTS[2:]
# A subject in the name of a file.
SUBJECT = r"sub-([A-Za-z0-9]+)"


def in_order(contrasts: Iterable[str]) -> tuple[str, ...]:
    """Those of CONTRASTS that are named, in that order, each once."""
    named = set(contrasts)
    return tuple(name for name in CONTRASTS if name in named)


def grid_entities(voxel_mm: float) -> str:
    """Entities of the working grid: `space-T1w_res-1mm`; a decimal point becomes `p` (`res-1p5mm`)."""
    return f"space-T1w_res-{voxel_mm:g}mm".replace(".", "p")


def derivative(scan_id: str, *entities: str, extension: str = ".nii.gz") -> str:
    """A file name such as `sub-01_ses-1_space-T1w_res-1mm_desc-preproc_FLAIR.nii.gz` from its parts, in order."""
    return "_".join((scan_id, *entities)) + extension


def scan_labels(scan_id: str) -> tuple[str, str]:
    """Subject and session label of a scan id: `01` and `1` of `sub-01_ses-1`; the session of `sub-01` is empty.

    Raises InputError when it is no id of a scan.
    """
    labels = re.fullmatch(r"sub-([A-Za-z0-9]+)(?:_ses-([A-Za-z0-9]+))?", scan_id)
    if labels is None:
        raise InputError(f"{shown(scan_id)}: is no scan id; give one such as sub-01 or sub-01_ses-1")
    return labels[1], labels[2] or ""


def grid_of_name(name: str) -> dict[str, str]:
    """What the `space` and `res` entities of a file name mean, as BIDS sidecar fields; empty for a name without them."""
    entities = re.search(r"_space-([A-Za-z0-9]+)_res-([A-Za-z0-9]+)_", name)
    if entities is None:
        return {}
    space, resolution = entities.groups()
    native = f"the grid of the {space} as given, with its header"
    grid = native if resolution == "native" else "the working grid: axis-aligned RAS, isotropic voxels"
    return {"SpatialReference": f"space of the {space} scan", "Resolution": grid}


def shown(path: str | Path) -> str:
    """A path as a sentence on one line names it: quoted where it holds line breaks or other characters that do not print."""
    return str(path) if str(path).isprintable() else repr(str(path))


def library_id(name: str) -> str:
    """The id of a mask of a lesion library from its file name: `lib-cs01` for `sub-cs01_space-MNI152_label-lesion_mask.nii.gz`.

    The label is that of the subject and of the session, if the name holds a subject; whatever else stands in the name, a
    model's card then says whose lesions it has seen. Of another name it is what stands before the entities space, label and desc
    and before `mask`, without `sub-` and all that joins. Raises InputError when that is no label of letters and digits.
    """
    found = re.search(rf"{SUBJECT}(?:_(ses-[A-Za-z0-9]+))?", name, re.IGNORECASE)
    stem = "".join(found.groups("")) if found else re.split(r"_(?:space|label|desc)-|_mask|\.nii", name)[0]
    label = re.sub(r"sub-|[ ._-]", "", stem)
    if not re.fullmatch(r"[A-Za-z0-9]+", label):
        raise InputError(
            f"{shown(name)}: its name gives no label of letters and digits; rename it, as in sub-01_label-lesion_mask.nii.gz"
        )
    return f"lib-{label}"


def subjects_in(name: str) -> list[str]:
    """The subject labels in a file name, in lower case, wherever they stand: programs put letters of their own before `sub-`."""
    return [label.lower() for label in re.findall(SUBJECT, name, re.IGNORECASE)]


def subjects_of(scan: str) -> list[str]:
    """The subject labels, in lower case, that an id may mean: `01` of `sub-01_ses-1`, none of what is no scan.

    The id of a library's mask joins subject and session, so that `lib-01ses1` may be of `01ses1` or of `01`.
    """
    kind, _, label = scan.lower().partition("-")
    if kind == "sub":
        return [label.split("_")[0]]
    return [label, *(label[: found.start()] for found in re.finditer("ses", label))] if kind == "lib" else []


def find_images(folder: str | Path, ending: str) -> list[Path]:
    """The files of a folder whose names end with `_<ending>`, sorted."""
    return sorted(path for path in Path(folder).glob(f"*_{ending}") if not path.name.startswith("."))


def find_image(folder: str | Path, ending: str) -> Path:
    """The one file of a folder whose name ends with `_<ending>`, such as `desc-preproc_T1w.nii.gz`.

    Raises InputError when there is none or more than one.
    """
    found = find_images(folder, ending)
    if len(found) != 1:
        count = "no file" if not found else f"{len(found)} files"
        raise InputError(f"{folder}: holds {count} ending in _{ending}; give a folder as the stage before writes it")
    return found[0]

"""What our nipype interfaces share."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, TraitedSpec

from lesionforge.images.files import made_folder, new_folder
from lesionforge.images.scratch import UNWRITABLE, ants_path


class FolderOutput(TraitedSpec):
    """The one output of each interface: the folder it wrote."""

    out_folder = Directory(exists=True)


def result_folder(inputs: BaseInterfaceInputSpec, name: str, record: str, own: Iterable[str]) -> AbstractContextManager[Path]:
    """`new_folder` of this name in an interface's `out`; none of the files and folders that `run` gave it to read is lost.

    `own` are the patterns of what the interface writes, `record` the end of the name of the JSON file that it always writes:
    where that is missing, files of such names are others', as masks that were copied out of our results and drawn anew.
    Raises InputError where ANTs, which all interfaces call, cannot work.
    """
    path = Path(ants_path(inputs.out, UNWRITABLE)) / name
    given = {key: value for key, value in inputs.get_traitsfree().items() if key != "out" and isinstance(value, str)}
    read = (value for value in given.values() if Path(value).is_absolute())
    return new_folder(path, *read, own=own if any(path.glob(f"*_{record}")) else ())


def run(interface: type, *, out: Path, **inputs: object) -> Path:
    """Run one of our interfaces here and now; the path of the folder it wrote into `out`.

    Paths become absolute (nipype changes the working folder while it runs). Links to files keep their names, which may say what
    they are; folders get their own, which are their labels. Inputs that are None are left out.
    """
    given = {
        name: str(value.resolve() if value.is_dir() else value.absolute()) if isinstance(value, Path) else value
        for name, value in inputs.items()
        if value is not None
    }
    with made_folder(out):
        result = interface(out=str(out.resolve()), **given).run(cwd=str(out.resolve()))
    return Path(result.outputs.out_folder)

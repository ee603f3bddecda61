"""What our nipype interfaces share."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import Directory, TraitedSpec

from lesionforge.images.files import made_folder, refuse_input_as_output


class FolderOutput(TraitedSpec):
    """The one output of each interface: the folder it wrote."""

    out_folder = Directory(exists=True)


def run(interface: type, *, out: Path, **inputs: object) -> Path:
    """Run one of our interfaces here and now; the path of the folder it wrote into `out`.

    Paths become absolute (nipype changes the working folder while it runs); inputs that are None are left out.
    """
    refuse_input_as_output(out, *(value for value in inputs.values() if isinstance(value, Path) and value.is_dir()))
    given = {
        name: str(value.resolve()) if isinstance(value, Path) else value for name, value in inputs.items() if value is not None
    }
    with made_folder(out):
        result = interface(out=str(out.resolve()), **given).run(cwd=str(out.resolve()))
    return Path(result.outputs.out_folder)

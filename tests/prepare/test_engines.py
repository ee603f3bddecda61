"""External skull-stripping programs, played by scripts on PATH that are called as the real ones are."""

import os
import stat
import sys

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.prepare.engines import PROGRAMS, brain_by_engine

# Where each program's documentation says that input and mask are named among its arguments.
CALLS = {
    "synthstrip": "head, mask = argv[argv.index('-i') + 1], argv[argv.index('-m') + 1]",
    "hd-bet": "head, mask = argv[argv.index('-i') + 1], argv[argv.index('-o') + 1].replace('.nii.gz', '_bet.nii.gz')\n"
    "assert argv[argv.index('-device') + 1] == 'cpu' and '--save_bet_mask' in argv",
    "robex": "head, stripped, mask = argv[1:4]",
    "bet": "head, mask = argv[1], argv[2].replace('.nii.gz', '') + '_mask.nii.gz'\n"
    "assert '-m' in argv and os.environ['FSLOUTPUTTYPE'] == 'NIFTI_GZ'\n"
    "open(argv[2], 'w').close()",
}
STRIP = """
image = nib.load(head)
data = image.get_fdata()
nib.save(nib.Nifti1Image((data > 70).astype(np.uint8), image.affine), mask)
"""


@pytest.fixture
def write_program(tmp_path, monkeypatch):
    """A function that puts a Python script on PATH under the name of an engine's program."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    for name in ("FSLDIR", "FSLOUTPUTTYPE"):
        monkeypatch.delenv(name, raising=False)

    def write(engine, body):
        path = programs / PROGRAMS[engine]
        path.write_text(f"#!{sys.executable}\nimport os\nimport sys\nargv = sys.argv\n{body}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


@pytest.fixture
def scan(tmp_path):
    """A scan under a name that a shell would take apart, its brain the upper half, and a folder to work in."""
    data = np.full((6, 7, 8), 20.0, np.float32)
    data[:, :, 4:] = 100
    folder = tmp_path / "scans of $(touch hacked) 'q' \"d\"; touch hacked"
    folder.mkdir()
    path = folder / "T1 w&.nii.gz"
    nib.save(nib.Nifti1Image(data, np.diag([-2.0, 2, 2, 1])), path)
    return path


@pytest.mark.parametrize("engine", CALLS)
def test_each_program_is_called_as_documented_and_its_mask_read(engine, write_program, scan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_program(engine, f"import nibabel as nib\nimport numpy as np\n{CALLS[engine]}\n{STRIP}")
    work = tmp_path / "work"
    work.mkdir()
    brain = brain_by_engine(engine, scan, work)
    assert brain.dtype == bool
    assert brain[:, :, 4:].all()
    assert not brain[:, :, :4].any()
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize("engine", CALLS)
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "print('Loading model')\nsys.exit('no weights found')",
            "failed (no weights found)",
        ),
        ("", "failed (it gave no reason)"),
    ],
)
def test_a_program_that_fails_or_writes_nothing_is_one_sentence(engine, body, said, write_program, scan, tmp_path):
    write_program(engine, body)
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(InputError) as caught:
        brain_by_engine(engine, scan, work)
    message = str(caught.value)
    assert message.startswith(f"{scan}: {PROGRAMS[engine]} {said}")
    assert message.endswith("; run it by hand on this scan or choose builtin")
    assert "\n" not in message
    assert str(work) not in message


@pytest.mark.parametrize("turned", ["RAS", "PSL", "LPI"])
@pytest.mark.parametrize("shape", [(6, 7, 8), (8, 8, 8)])
def test_a_mask_with_its_axes_turned_is_turned_back(shape, turned, write_program, tmp_path):
    data = np.full(shape, 20.0, np.float32)
    data[1:4, 2:, 4:] = 100
    path = tmp_path / "t1.nii.gz"
    nib.save(nib.Nifti1Image(data, np.diag([-2.0, 2, 2, 1])), path)
    turn = f"nib.orientations.ornt_transform(nib.io_orientation(plain.affine), nib.orientations.axcodes2ornt('{turned}'))"
    save = f"plain = nib.load(mask)\nnib.save(plain.as_reoriented({turn}), mask)"
    write_program("robex", f"import nibabel as nib\nimport numpy as np\n{CALLS['robex']}\n{STRIP}\n{save}")
    assert np.array_equal(brain_by_engine("robex", path, tmp_path), data > 70)


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_a_scan_whose_forms_disagree_or_shear_has_its_mask_voxel_by_voxel(form, write_program, tmp_path):
    """Programs look at one form alone, and write it into both of their mask."""
    data = np.full((6, 7, 8), 20.0, np.float32)
    data[1:4, 2:, 4:] = 100
    image = nib.Nifti1Image(data, np.diag([-2.0, 2, 2, 1]) + 0.3 * np.eye(4, k=1))
    image.set_qform(np.diag([2.0, 2, 2, 1]), code=1)
    path = tmp_path / "t1.nii.gz"
    nib.save(image, path)
    save = f"nib.save(nib.Nifti1Image((image.get_fdata() > 70).astype(np.uint8), image.get_{form}()), mask)"
    write_program("robex", f"import nibabel as nib\nimport numpy as np\n{CALLS['robex']}\nimage = nib.load(head)\n{save}")
    assert np.array_equal(brain_by_engine("robex", path, tmp_path), data > 70)


def test_a_mask_elsewhere_or_without_a_brain_is_refused(write_program, scan, tmp_path):
    place = "np.diag([-2.0, 2, 2, 1])"
    for shape, value, affine in (
        ((6, 7, 4), "[..., :2] = 1", f"{place} + [[0, 0, 0, 99], [0] * 4, [0] * 4, [0] * 4]"),
        ((6, 7, 8), "[:] = 0", place),
        ((6, 7, 8), "[:] = 1", place),
    ):
        mask = f"data = np.zeros({shape}, np.uint8)\ndata{value}\nnib.save(nib.Nifti1Image(data, {affine}), argv[3])"
        write_program("robex", f"import nibabel as nib\nimport numpy as np\n{mask}")
        with pytest.raises(
            InputError,
            match=r"T1 w&.nii.gz: runROBEX.sh wrote no brain on the scan's grid",
        ):
            brain_by_engine("robex", scan, tmp_path)


@pytest.mark.parametrize("command", [["prepare", "--subject", "x"], ["prepare", "strip", "--id", "sub-x"]])
def test_a_missing_program_ends_the_command_before_any_work(command, scan, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "out"
    scans = [
        "--t1w",
        str(scan),
        "--flair",
        str(scan),
        "--strip-engine",
        "hd-bet",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(main, [*command, *scans])
    assert result.exit_code == 2
    (sentence,) = result.stderr.strip().splitlines()
    assert "--strip_engine hd-bet: its program hd-bet is not on PATH; install it or choose builtin" in sentence
    assert not out.exists()


def test_a_failing_program_ends_the_command_with_its_scan_named(write_program, scan, tmp_path, rng):
    head = scan.parent / "head.nii.gz"
    nib.save(
        nib.Nifti1Image(rng.normal(100, 9, (30, 30, 30)).astype(np.float32), np.diag([3.0, 3, 3, 1])),
        head,
    )
    write_program("synthstrip", "sys.exit(3)")
    out = tmp_path / "out"
    scans = [
        "--t1w",
        str(head),
        "--flair",
        str(head),
        "--subject",
        "x",
        "--strip-engine",
        "synthstrip",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(main, ["prepare", *scans, "--voxel-mm", "3"])
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith(f"Error: {head}: mri_synthstrip failed (")
    assert not out.exists()

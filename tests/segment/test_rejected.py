"""Laws of a scan whose candidates CNN1 rejects one and all: every file is there, and empty."""

from dataclasses import replace
from pathlib import Path

import ants
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cascade.card import cascade_entries
from lesionforge.cascade.settings import CONFIGURATIONS, NETWORKS, CascadeConfig
from lesionforge.cli import main
from lesionforge.images import Prepared, read_json, read_tsv, read_volume, write_mask
from lesionforge.images.names import ALWAYS
from lesionforge.segment.lesions import lesion_columns
from lesionforge.train.network import build_network


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, write_blob_scan) -> Path:
    """A scan with native grids."""
    folder = write_blob_scan(tmp_path_factory.mktemp("rejected"), "sub-9", seed=9)
    scan = Prepared.open(folder).read()
    for space in ALWAYS:
        write_mask(scan.brain, scan.affine, folder / f"sub-9_space-{space}_res-native_desc-brain_mask.nii.gz", "brain")
    still = ants.create_ants_transform("Euler3DTransform")
    ants.write_transform(still, str(folder / "sub-9_from-FLAIR_to-T1w_mode-image_xfm.mat"))
    return folder


def segmented(prepared: Path, config: CascadeConfig, root: Path) -> tuple[str, Path]:
    """What `segment` says of a scan, by untrained networks, and the folder that it writes."""
    root.mkdir()
    nets.set_up(1)
    networks = {name: build_network(config.network, ALWAYS) for name in NETWORKS}
    model = root / "model"
    model.mkdir()
    nets.save_models(model, networks, cascade_entries(config, 2.0))
    call = ["segment", "--prepared", prepared, "--model", model, "--out", root / "segment"]
    result = CliRunner().invoke(main, [str(word) for word in call])
    assert result.exit_code == 0, result.output
    return result.output, root / "segment/sub-9"


@pytest.mark.parametrize(("name", "network"), [("lesionforge", "dense"), ("published", "valverde2017")])
def test_a_scan_whose_candidates_are_all_rejected_gets_all_files_empty(
    prepared: Path, tmp_path: Path, name: str, network: str
) -> None:
    config = CONFIGURATIONS[name]
    assert config.network == network
    passing = replace(config, cnn1_threshold=0, lesion_threshold=0.01, lowest_threshold=None)
    said, found = segmented(prepared, passing, tmp_path / "passing")
    assert " lesions, " in said, "there are candidates"
    said, empty = segmented(prepared, replace(config, cnn1_threshold=1), tmp_path / "rejecting")
    assert "sub-9: no lesion found, the mask is empty" in said
    assert {path.name for path in empty.iterdir()} == {path.name for path in found.iterdir()}
    images = sorted(empty.glob("*.nii.gz"))
    assert len(images) == 9
    for image in images:
        assert not read_volume(image)[0].any(), image.name
    table, summary = read_tsv(empty / "sub-9_desc-lesions.tsv"), read_json(empty / "sub-9_desc-segment.json")
    assert len(table) == 0 and list(table) == list(lesion_columns(ALWAYS))
    assert summary["lesion_count"] == summary["volume_ml"] == summary["volume_native_flair_ml"] == 0
    assert summary["cnn1_threshold"] == 1

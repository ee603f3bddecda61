"""Laws of sampling and training."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lesionforge import nets
from lesionforge.cascade.card import read_cascade_card
from lesionforge.cascade.settings import CONFIGURATIONS, CascadeConfig
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import Prepared, read_json, read_tsv, write_json
from lesionforge.train import sampling
from lesionforge.train.fit import MAPPED_BATCHES, Samples, ahead, batches, train_cascade
from lesionforge.train.network import build_network, build_optimizer
from lesionforge.train.patches import gather
from lesionforge.train.sampling import LabelledScan, draw, draw_epoch, gather_pooled, label_scan, pool

TINY = CascadeConfig(epochs=2, steps_per_epoch=2, mined_per_negative=4)


def silent(_: str) -> None:
    """No progress lines."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, write_blob_scan) -> list[Path]:
    root = tmp_path_factory.mktemp("train") / "prepare"
    return [write_blob_scan(root, f"sub-{number}", seed=number) for number in range(2)]


@pytest.fixture(scope="module")
def scans(folders) -> list[LabelledScan]:
    return [label_scan(folder.name, Prepared.open(folder).read(), TINY) for folder in folders]


def test_drawing_takes_every_voxel_equally_often() -> None:
    counts = np.bincount(draw(np.arange(7), 23, np.random.default_rng(0)))
    assert set(counts) == {3, 4}
    assert len(set(draw(np.arange(50), 20, np.random.default_rng(0)))) == 20


def test_an_epoch_is_half_lesion_and_the_next_one_differs(scans) -> None:
    lesion, healthy = pool([scan.lesion for scan in scans]), pool([scan.healthy for scan in scans])
    config = CascadeConfig(batch_size=100, steps_per_epoch=2)
    rng = np.random.default_rng(0)
    (first, labels), (second, _) = (
        draw_epoch(scans, lesion, healthy, config, rng),
        draw_epoch(scans, lesion, healthy, config, rng),
    )
    assert labels.sum() == 100
    assert {tuple(row) for row in first[labels == 1]} <= {tuple(row) for row in lesion}
    assert {tuple(row) for row in first[labels == 0]} != {tuple(row) for row in second[labels == 0]}


@pytest.mark.parametrize("passed", [0, 30])
def test_where_the_first_network_leaves_too_few_negatives_each_epoch_adds_others(scans, passed: int, monkeypatch) -> None:
    """The same negatives at every resampling are a defect of the reference program."""
    config = CascadeConfig(batch_size=100, steps_per_epoch=2, fallback_flair_z=-10, cnn1_threshold=0.5)
    mined: set[tuple[int, ...]] = set()

    def score(network: object, volume: object, voxels: np.ndarray) -> np.ndarray:
        mined.update((0, *map(int, voxel)) for voxel in voxels[:passed])
        return np.arange(len(voxels)) < passed

    monkeypatch.setattr(sampling, "score", score)
    rng = np.random.default_rng(0)
    found = sampling.hard_negatives(None, scans[:1], config.negatives_per_epoch, config, rng)
    lesion = pool([scans[0].lesion])
    epochs = [draw_epoch(scans[:1], lesion, found, config, rng) for _ in range(2)]
    first, second = ([tuple(map(int, voxel)) for voxel in voxels[labels == 0]] for voxels, labels in epochs)
    assert len(first) == len(second) == config.negatives_per_epoch
    assert len(set(second) - set(first)) > 20
    # 30 of 100, by a standard deviation of 3.3, and some that are among the others by chance.
    assert abs(sum(voxel in mined for voxel in first) - passed) < 15


def test_nicmslesions_draws_two_negatives_for_each_lesion_voxel(scans) -> None:
    config = replace(CONFIGURATIONS["nicmslesions"], batch_size=30, steps_per_epoch=2)
    lesion, healthy = pool([scan.lesion for scan in scans]), pool([scan.healthy for scan in scans])
    _, labels = draw_epoch(scans, lesion, healthy, config, np.random.default_rng(0))
    assert (labels.sum(), len(labels)) == (20, 60)


def test_nicmslesions_is_trained_as_the_program_is(folders, tmp_path: Path) -> None:
    index = tmp_path / "real.tsv"
    index.write_text(f"id\tsplit\tfolder\nsub-0\ttrain\t{folders[0]}\n")
    call = ["train", "--index", f"{index}", "--configuration", "nicmslesions", "--epochs", "1", "--steps-per-epoch", "1"]
    result = CliRunner().invoke(main, [*call, "--out", f"{tmp_path}/model"])
    assert result.exit_code == 0, result.output
    card, config, _ = read_cascade_card(tmp_path / "model")
    assert (config.network, config.patience, config.negatives_per_lesion) == ("nicmslesions", 50, 2)
    assert (config.lesion_threshold, config.min_volume_mm3) == (0.5, 10)
    assert CONFIGURATIONS["nicmslesions"].epochs == 400 and "min_error" not in card["parameters"]


def test_pooled_patches_come_from_their_own_scan(scans) -> None:
    voxels = pool([scan.lesion[:3] for scan in scans])[[4, 0, 3, 1]]
    patches = gather_pooled(scans, voxels)
    for patch, (number, *centre) in zip(patches, voxels, strict=True):
        np.testing.assert_array_equal(patch, gather(scans[number].volume, np.array([centre]))[0])


def test_batches_hold_the_patches_of_an_epoch_in_its_order_also_where_their_number_is_odd(scans) -> None:
    config = replace(CONFIGURATIONS["published"], batch_size=3, steps_per_epoch=2 * MAPPED_BATCHES + 1)
    pools = pool([scan.lesion for scan in scans]), pool([scan.healthy for scan in scans])
    voxels, labels = draw_epoch(scans, *pools, config, np.random.default_rng(4))
    made = list(batches(Samples(scans, *pools), config, np.random.default_rng(4)))
    assert len(made) == config.steps_per_epoch
    np.testing.assert_array_equal(np.concatenate([label for _, label in made]), labels)
    # Turning keeps what lies at the centre.
    centres = np.concatenate([patches for patches, _ in made])[:, 5, 5, 5]
    np.testing.assert_array_equal(centres, gather_pooled(scans, voxels)[:, 5, 5, 5])


def test_healthy_candidates_are_never_lesion(scans, folders) -> None:
    lesion = Prepared.open(folders[0]).read().lesion
    assert not lesion[tuple(scans[0].healthy.T)].any()
    assert lesion[tuple(scans[0].lesion.T)].all()


@pytest.mark.parametrize("lacking", ["lesion", "healthy"])
def test_one_class_is_refused(scans, lacking: str) -> None:
    empty = np.zeros((0, 3), np.int16)
    kept = {"lesion": scans[0].lesion, "healthy": scans[0].healthy} | {lacking: empty}
    with pytest.raises(InputError, match=f"no {lacking} voxel"):
        train_cascade([replace(scans[0], **kept)], [], TINY, 1, silent)


def test_the_command_refuses_one_class_in_a_sentence(tmp_path: Path, write_blob_scan) -> None:
    folder = write_blob_scan(tmp_path, "sub-0", seed=0, with_lesions=False)
    index = tmp_path / "real.tsv"
    index.write_text(f"id\tsplit\tfolder\nsub-0\ttrain\t{folder}\n")
    result = CliRunner().invoke(main, ["train", "--index", str(index), "--out", str(tmp_path / "model")])
    assert result.exit_code == 2 and "Error: the training scans hold no lesion voxel inside the brain; give " in result.output
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def model(folders) -> Path:
    """A model folder made by the command, with one training and one validation scan."""
    root = folders[0].parents[1]
    (root / "assemble").mkdir()
    index = root / "assemble/real.tsv"
    index.write_text("id\tsplit\tfolder\nsub-0\ttrain\t../prepare/sub-0\nsub-1\tvalidation\t../prepare/sub-1\n")
    call = [
        "train",
        "--index",
        str(index),
        "--configuration",
        "published",
        "--epochs",
        "2",
        "--steps-per-epoch",
        "2",
        "--out",
        f"{root}/train/real",
    ]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 0, result.output
    return root / "train/real"


def test_model_folder_says_what_it_is(model: Path) -> None:
    card = nets.read_card(model, "cascade")
    assert card["training"] == ["sub-0"] and card["validation"] == ["sub-1"]
    assert card["voxel_mm"] == 2.0 and card["contrasts"] == ["T1w", "FLAIR"]
    assert card["parameters"]["epochs"] == 2
    history = read_tsv(model / "history.tsv")
    assert list(history["network"]) == ["cnn1", "cnn1", "cnn2", "cnn2"]
    assert all(np.isfinite(history["val_loss"].astype(float)))
    assert "val_loss" in read_json(model / "history.json")


def test_the_card_says_whose_lesions_and_brains_its_synthetic_scans_hold(model: Path, folders, tmp_path: Path) -> None:
    assert nets.read_card(model, "cascade")["derived_from"] == []
    scan = Path(shutil.copytree(folders[0], tmp_path / "sub-0"))
    index = tmp_path / "augmented.tsv"
    index.write_text("id\tsplit\tfolder\nsub-0\ttrain\tsub-0\n")
    record = {"donor": "sub-7", "canvas": "sub-3", "generator_scans": ["sub-7", "sub-8"]}
    write_json(record, scan / "sub-0_desc-provenance.json")
    call = [
        "train",
        "--index",
        f"{index}",
        "--configuration",
        "published",
        "--epochs",
        "1",
        "--steps-per-epoch",
        "1",
        "--out",
        f"{tmp_path}/model",
    ]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 0, result.output
    assert nets.read_card(tmp_path / "model", "cascade")["derived_from"] == ["sub-3", "sub-7", "sub-8"]
    for wrong, said in (({"donor": "sub-7"}, "lacks canvas"), (record | {"canvas": 3}, "names no scans as donor and canvas")):
        write_json(wrong, scan / "sub-0_desc-provenance.json")
        result = CliRunner().invoke(main, call)
        assert result.exit_code == 2 and said in result.output


def test_a_made_scan_says_what_it_is_made_of_and_of_no_validation_subject(folders, tmp_path: Path) -> None:
    scan = Path(shutil.copytree(folders[0], tmp_path / "sub-0"))
    index = tmp_path / "augmented.tsv"
    rows = f"sub-0\tsynthetic\ttrain\tsub-0\nsub-1\treal\tvalidation\t{folders[1]}\n"
    index.write_text(f"id\torigin\tsplit\tfolder\n{rows}")
    call = ["train", "--index", f"{index}", "--out", f"{tmp_path}/model"]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 2 and f"{scan}: is not of a real scan, but has no *_desc-provenance.json" in result.output
    for donor in ("sub-1", "sub-1_ses-2", "lib-1", "lib-1ses2"):
        write_json({"donor": donor, "canvas": "sub-3"}, scan / "sub-0_desc-provenance.json")
        result = CliRunner().invoke(main, call)
        assert result.exit_code == 2 and f"{scan}: is made of {donor}, a scan of a validation subject" in result.output


def test_synthetic_weight_is_the_weight_of_made_scans_alone(folders, tmp_path: Path, write_blob_scan, monkeypatch) -> None:
    painted = write_blob_scan(tmp_path, "sub-syn0001", seed=7)
    write_json({"donor": "sub-7", "canvas": "sub-3"}, painted / "sub-syn0001_desc-provenance.json")
    index = tmp_path / "augmented.tsv"
    rows = [f"sub-0\treal\ttrain\t{folders[0]}", "sub-syn0001\tsynthetic\ttrain\tsub-syn0001"]
    index.write_text("\n".join(["id\torigin\tsplit\tfolder", *rows, f"sub-1\treal\tvalidation\t{folders[1]}", ""]))
    read = []

    def stop(training: list[LabelledScan], *_: object, **__: object) -> None:
        read.append({scan.scan_id: scan.weight for scan in training})
        raise InputError("read all scans")

    monkeypatch.setattr("lesionforge.train.command.train_cascade", stop)
    for option in ([], ["--synthetic-weight", "0.25"], ["--synthetic-weight", "3"]):
        result = CliRunner().invoke(main, ["train", "--index", f"{index}", *option, "--out", f"{tmp_path}/model"])
        assert "read all scans" in result.output
    assert read == [{"sub-0": 1, "sub-syn0001": weight} for weight in (1, 0.25, 3)]


def test_saved_network_gives_the_same_answer(model: Path, scans) -> None:
    patches = gather(scans[0].volume, scans[0].lesion[:20])
    first, second = (nets.load_model(model, "cnn1").predict_on_batch(patches) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_loss_that_is_no_number_ends_the_training(scans) -> None:
    """A hostile find: the networks were saved, and segmented nothing."""
    broken = [replace(scan, volume=replace(scan.volume, source=np.full_like(scan.volume.data, np.nan))) for scan in scans]
    with pytest.raises(InputError, match="cnn1: its loss or weights are NaN or infinite in epoch 1, so nothing is saved"):
        train_cascade(broken, [], TINY, 1, silent)


def test_batches_made_ahead_keep_their_order_and_an_error_is_not_lost() -> None:
    def steps():
        for number in range(3):
            yield np.full(1, number), np.zeros(1)
        raise OSError("the disk is gone")

    coming = ahead(steps())
    assert [int(next(coming)[0][0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)


def test_same_seed_same_weights(scans, monkeypatch) -> None:
    monkeypatch.setenv("LESIONFORGE_REPRODUCIBLE", "1")

    def trained(seed: int) -> list[np.ndarray]:
        nets.set_up(seed)
        models, _ = train_cascade(scans, [], replace(TINY, epochs=1), seed, silent)
        return [weight for network in models.values() for weight in network.get_weights()]

    first, again = trained(1), trained(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    nets.set_up(1)
    untrained = build_network().get_weights()
    assert not np.array_equal(first[0], untrained[0])
    nets.set_up(2)
    assert not np.array_equal(untrained[0], build_network().get_weights()[0])


def test_index_faults_are_told(folders, tmp_path: Path) -> None:
    for text, said in (
        ("id\tsplit\n", "has no column folder"),
        ("id\tsplit\tfolder\n", "has no training scan"),
        (f"id\tsplit\tfolder\nsub-0\ttest\t{folders[0]}\n", "is in split 'test'"),
        ("id\tsplit\tfolder\nsub-9\ttrain\tsub-9\n", "is no prepared scan"),
        ("id\tsplit\tfolder\n../sub-9\ttrain\tsub-9\n", "../sub-9: is no scan id"),
        ("id\tsplit\tfolder\nsub-9\ttrain\tx\nsub-9\ttrain\ty\n", "holds sub-9 twice"),
        ("id\tsplit\tfolder\nsub-9_ses-1\ttrain\tx\nsub-9_ses-2\tvalidation\ty\n", "sub-9 is in train and in validation"),
    ):
        (tmp_path / "real.tsv").write_text(text)
        result = CliRunner().invoke(main, ["train", "--index", f"{tmp_path}/real.tsv", "--out", f"{tmp_path}/model"])
        assert result.exit_code == 2 and said in result.output
    assert not (tmp_path / "model").exists()


def test_optimiser_is_the_named_one() -> None:
    assert type(build_optimizer(TINY)).__name__ == "Adadelta"
    assert type(build_optimizer(replace(TINY, optimizer="adam", learning_rate=1e-3))).__name__ == "Adam"
    with pytest.raises(ValueError, match="sgd"):
        build_optimizer(replace(TINY, optimizer="sgd"))

"""The card of a generator: all that painting must know, and what is refused."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from lesionforge.errors import InputError
from lesionforge.images import read_json, write_json
from lesionforge.synthesize.config import CARD_VERSION, CONFIGURATIONS, GeneratorConfig
from lesionforge.synthesize.generator_folder import read_generator_card, save_generator
from lesionforge.synthesize.network import build_generator

CONTRASTS = ("t1w", "flair")


@pytest.fixture(scope="module", params=sorted(CONFIGURATIONS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GeneratorConfig]:
    """A generator that was never trained, of each configuration."""
    config = replace(CONFIGURATIONS[request.param], width=2, tiles_per_epoch=7)
    out = tmp_path_factory.mktemp("model") / "generator"
    history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    typical = {"t1w": [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], "flair": list(range(13))}
    network = build_generator(config)[1]
    save_generator(out, network, config, history, seed=3, trained_on=["sub-01"], validated_on=[], typical_levels=typical)
    return out, config


def test_the_card_gives_every_setting_back(folder: tuple[Path, GeneratorConfig]) -> None:
    card, config = read_generator_card(folder[0], CONTRASTS)
    assert config == folder[1]
    assert set(card["config"]) == {field.name for field in fields(GeneratorConfig)}
    assert (card["epochs"], card["best_epoch"], card["seed"]) == (2, 2, 3)


def test_a_generator_of_other_contrasts_is_refused(folder: tuple[Path, GeneratorConfig]) -> None:
    with pytest.raises(InputError, match="was trained on t1w, flair, but canvases have t1w, t2w"):
        read_generator_card(folder[0], ("t1w", "t2w"))


@pytest.mark.parametrize(
    "change", [{"card_version": CARD_VERSION - 1}, {"card_version": CARD_VERSION + 1}, {"config": {"width": 2}}, {"config": None}]
)
def test_a_card_of_another_version_is_refused(folder: tuple[Path, GeneratorConfig], change: dict, tmp_path: Path) -> None:
    for path in folder[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_json(read_json(tmp_path / "model.json") | change, tmp_path / "model.json")
    with pytest.raises(InputError, match="train the generator again") as caught:
        read_generator_card(tmp_path, CONTRASTS)
    assert "\n" not in str(caught.value)


def test_the_configurations_say_what_they_are() -> None:
    assert CONFIGURATIONS["salem2019"] == GeneratorConfig("salem2019")
    for name, config in CONFIGURATIONS.items():
        assert config.name == name
        assert config.contrasts == CONTRASTS
        # Whole slices need a network that takes any size.
        assert config.shared_slopes or config.inference_stride

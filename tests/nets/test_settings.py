"""Settings read back from JSON: what was written comes back, anything else is one sentence."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest

from lesionforge.cascade.settings import CascadeConfig
from lesionforge.cli import main
from lesionforge.errors import InputError
from lesionforge.images import read_json, write_json
from lesionforge.nets.settings import Within, limits_of, settings_of
from lesionforge.synthesize.config import CONFIGURATIONS, GeneratorConfig


@dataclass(frozen=True)
class Part:
    share: Annotated[float, Within(0, 1, above=True)] = 0.5


@dataclass(frozen=True)
class Whole:
    count: Annotated[int, Within(1, 8)]
    kind: Literal["fast", "slow"] = "fast"
    on: bool = True
    patience: int | None = None
    names: tuple[str, ...] = ("a",)
    levels: dict[Literal["t1w", "flair"], tuple[int, ...]] = field(default_factory=dict)
    part: Part = Part()

    def __post_init__(self) -> None:
        if self.on and self.count == 7:
            raise ValueError("count is 7, which excludes on")


@pytest.mark.parametrize(
    "settings", [*CONFIGURATIONS.values(), CascadeConfig(), Whole(3, patience=2, levels={"t1w": (1, 2)}, part=Part(1))]
)
def test_what_was_saved_comes_back(settings: Any, tmp_path) -> None:
    write_json(asdict(settings), tmp_path / "card.json")
    assert settings_of(type(settings), read_json(tmp_path / "card.json"), "card.json") == settings


def test_defaults_stand_in_and_strangers_are_passed_over() -> None:
    assert settings_of(Whole, {"count": 2, "unheard_of": None}, "card.json") == Whole(2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "card.json is [], but must hold settings"),
        ({}, "card.json: lacks count"),
        ({"count": "2"}, "card.json: count is '2', but must be a whole number from 1 to 8"),
        ({"count": True}, "card.json: count is True, but must be a whole number from 1 to 8"),
        ({"count": 2.0}, "card.json: count is 2.0, but must be a whole number from 1 to 8"),
        ({"count": 0}, "card.json: count is 0, but must be a whole number from 1 to 8"),
        ({"count": 2, "kind": "odd"}, "card.json: kind is 'odd', but must be fast or slow"),
        ({"count": 2, "kind": ["fast"]}, "card.json: kind is ['fast'], but must be fast or slow"),
        ({"count": 2, "on": 1}, "card.json: on is 1, but must be true or false"),
        ({"count": 2, "patience": "x\ny"}, "card.json: patience is 'x\\ny', but must be a whole number or null"),
        ({"count": 2, "names": "ab"}, "card.json: names is 'ab', but must be a list, each of it a text"),
        ({"count": 2, "names": [None]}, "card.json: names is [None], but must be a list, each of it a text"),
        (
            {"count": 2, "levels": {"t2w": [1]}},
            "card.json: levels is {'t2w': [1]}, but must be an object of t1w or flair, each a list, each of it a whole number",
        ),
        ({"count": 2, "part": 5}, "card.json: part is 5, but must hold settings"),
        ({"count": 2, "part": {"share": 0}}, "card.json: part: share is 0, but must be a number above 0, at most 1"),
        ({"count": 2, "part": {"share": float("nan")}}, "card.json: part: share is nan, but must be a number above 0, at most 1"),
        ({"count": 7}, "card.json: count is 7, which excludes on"),
    ],
)
def test_anything_else_is_one_sentence(content: object, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        settings_of(Whole, content, "card.json")
    assert str(caught.value) == f"{sentence}; copy the whole model folder again"


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 10**400, "1", None, [1.0]])
def test_a_number_is_finite(value: object) -> None:
    with pytest.raises(InputError, match="candidate_flair_z"):
        settings_of(CascadeConfig, {"candidate_flair_z": value}, "card.json")


@pytest.mark.parametrize("changes", [{"tile_size": 60}, {"inference_stride": None}])
def test_settings_that_exclude_each_other_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"card\.json: (tile_size is 60|inference_stride is null), but"):
        settings_of(GeneratorConfig, asdict(CONFIGURATIONS["salem2019"]) | changes, "card.json")


OPTIONS = [
    ("train", None, "epochs", CascadeConfig, "epochs", "train_epochs"),
    ("train", None, "steps_per_epoch", CascadeConfig, "steps_per_epoch", "train_steps"),
    ("segment", None, "min_volume_mm3", CascadeConfig, "min_volume_mm3", "min_volume_mm3"),
    ("synthesize", "train-generator", "width", GeneratorConfig, "width", "generator_width"),
    ("synthesize", "train-generator", "epochs", GeneratorConfig, "epochs", "generator_epochs"),
    ("synthesize", "train-generator", "tiles_per_epoch", GeneratorConfig, "tiles_per_epoch", "generator_tiles"),
]


@pytest.mark.parametrize(("stage", "part", "option", "settings", "field", "parameter"), OPTIONS)
def test_an_option_and_a_parameter_have_the_limits_of_the_card(
    stage: str, part: str | None, option: str, settings: type, field: str, parameter: str
) -> None:
    """Else a card could be written that cannot be read back."""
    command = main.get_command(click.Context(main), stage)
    command = command.commands[part] if part else command
    kind = next(one.type for one in command.params if one.name == option)
    schema = read_json(Path(__file__).parents[2] / "nextflow_schema.json")
    rule = next(group["properties"][parameter] for group in schema["$defs"].values() if parameter in group["properties"])
    assert (kind.min, kind.max) == (rule["minimum"], rule["maximum"]) == limits_of(settings, field)

"""Options mean what they say, no number that is none, and none that is dropped without a word; and so do exit codes."""

import errno
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from lesionforge.cli import COMMANDS, main
from lesionforge.options import FiniteRange, OwnOptionsGroup


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands with their words, groups too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands())
NUMBERS = [
    (words, param.opts[0]) for words, command in ALL.items() for param in command.params if isinstance(param.type, FiniteRange)
]


def test_every_number_with_decimals_is_a_finite_one() -> None:
    kinds = {type(param.type) for command in ALL.values() for param in command.params}
    assert FiniteRange in kinds
    assert not {kind for kind in kinds if issubclass(kind, click.types.FloatParamType)} - {FiniteRange}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(("words", "option"), NUMBERS, ids=lambda part: part if isinstance(part, str) else " ".join(part))
def test_nan_and_infinity_are_no_numbers(words: tuple[str, ...], option: str, value: str) -> None:
    result = CliRunner().invoke(main, [*words, option, value])
    assert result.exit_code == 2
    assert "is not a finite number" in result.output or "is not in the range" in result.output


def test_every_group_that_is_a_command_too_keeps_its_options() -> None:
    groups = {words[0] for words, command in ALL.items() if isinstance(command, click.Group)}
    assert groups <= set(COMMANDS) and {"segment", "evaluate", "prepare", "register", "synthesize"} <= groups
    for name in groups:
        assert isinstance(ALL[name,], OwnOptionsGroup), name


@pytest.mark.parametrize(
    "line",
    [
        "evaluate --protocol isbi2015 cohort t.tsv --out o",
        "evaluate --protocol ours cohort t.tsv --out o",
        "segment --model nope tabulate s.json --out o",
        "synthesize --width 4 train-generator --root . --out o",
        "prepare --denoise judge --figures f.json",
    ],
)
def test_an_option_before_a_subcommand_is_not_dropped(line: str) -> None:
    words = line.split()
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert f"{words[1]} before " in result.output


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 74), (errno.EDQUOT, 74), (errno.EACCES, 2), (None, 2)])
def test_a_full_disk_has_an_exit_code_of_its_own(number: int | None, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: object) -> None:
        raise OSError(number, "will not do", "image.nii.gz") if number else OSError("will not do")

    monkeypatch.setattr(click.Command, "invoke", fail)
    result = CliRunner().invoke(main, ["evaluate", "compare", "row.json", "--out", "o"])
    assert result.exit_code == code
    assert "will not do; check the path, its permissions and the free space" in result.output


def test_a_subcommand_alone_has_its_help() -> None:
    for words in ALL:
        result = CliRunner().invoke(main, [*words, "--help"])
        assert result.exit_code == 0, words

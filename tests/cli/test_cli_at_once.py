"""Help and what is misspelt are answered before JAX is loaded, from words that are those of the real things."""

import pkgutil
import subprocess
import sys

import pytest

from narrow_jax import activations, cli, data, initializers
from narrow_jax.cli import commands, config, train_config

LIGHT = (
    *(["--help"], ["train", "--help"], ["certify", "kkt", "--help"], ["trian"], ["train", "--wdith", "8"]),
    *(["train", "--dataset", "digitz"], ["spectrum", "--activation", "tahn"], ["train", "--data", "no.csv"]),
    *(["train", "--config", "no.json"], ["predict", "--run", "r", "--data", "no.csv"]),
)


def loaded(words):
    """Exit status, and which of the packages that take long are loaded where the command leaves."""
    code = (
        "import sys, atexit; from narrow_jax import cli; "
        "heavy = ('jax', 'numpy', 'scipy', 'optax', 'flax', 'rich'); "
        "atexit.register(lambda: print('loaded', *(name for name in heavy if name in sys.modules))); "
        f"sys.exit(cli.main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_help_and_misspelt_words_load_nothing(words):
    assert loaded(words) == (0 if "--help" in words else 2, [])


def test_close_words_are_named_at_once(capsys):
    assert cli.main(["train", "--dataset", "digitz"]) == 2
    assert (
        "unknown data set 'digitz': did you mean 'digits'? Expected one of digits, "
        in capsys.readouterr().err
    )
    assert cli.main(["train", "--data", "no.csv"]) == 2
    assert "no.csv; expected the file of --data: check the name" in capsys.readouterr().err


def test_what_passes_the_parser_loads_jax():  # else the test above would not see it
    status, packages = loaded(["train", "--steps", "0"])
    assert status == 2
    assert "jax" in packages


def test_choices_are_those_of_the_package():
    assert train_config.DATASETS == data.NAMES
    assert tuple(data.NORMALIZERS) == train_config.NORMALIZERS
    assert activations.names() == train_config.ACTIVATIONS
    assert tuple(config.OPTIMIZERS) == train_config.OPTIMIZERS
    assert ("search", *initializers.PYRAMIDS) == commands.STARTS


@pytest.mark.parametrize(
    "command", [*commands.COMMANDS, *commands.THEOREMS], ids=lambda command: command.name
)
def test_the_work_of_every_command_is_there(command):
    assert callable(pkgutil.resolve_name(f"narrow_jax.cli.{command.run}"))

"""What is said where the compilers are missing, of another version, or in use; and the record in the docs."""

import json
import subprocess
import sys
from importlib import metadata

import pytest

from benchmarks import _timing, aot, compiled

HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def versions(monkeypatch):
    """Pretend which versions are installed; the others are those that are."""

    def pretend(**found):
        real = metadata.version

        def version(name):
            given = found.get(name.replace("-", "_"), real)
            if given is real:
                return real(name)
            if given is None:
                raise metadata.PackageNotFoundError(name)
            return given

        monkeypatch.setattr(metadata, "version", version)

    return pretend


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Let another process hold the lock for some seconds."""
    lock = tmp_path / "lockfile"
    monkeypatch.setattr(compiled, "LOCK", lock)
    processes = []

    def hold(seconds):
        command = [sys.executable, "-c", HOLDER, str(lock), str(seconds)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[0].stdout.readline() == "held\n"

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_missing_wheels(platform, versions):
    versions(libtpu=None, jax_cuda12_plugin=None, jax_cuda12_pjrt=None)
    assert compiled.missing(platform).endswith(f"which compiles for {platform} without one: run make aot")


def test_wheels_of_another_version(versions):
    versions(libtpu="0.0.1", jax_cuda12_plugin="0.1.0", jax_cuda12_pjrt=metadata.version("jaxlib"))
    jax = metadata.version("jax")
    assert f"libtpu is 0.0.1, and jax {jax} goes with libtpu==" in compiled.missing("tpu")
    assert f"jax-cuda12-plugin is 0.1.0, and jax {jax} goes with jax-cuda12-plugin==" in compiled.missing(
        "cuda"
    )
    with pytest.raises(compiled.UnavailableError, match="remove the folder build/aot and run make aot"):
        compiled.devices(compiled.V5E._replace(name="not asked for before"))


def test_the_right_wheels(versions):
    libtpu = compiled.wheels()[0].split("==")[1].replace("*", "7")
    jaxlib = metadata.version("jaxlib")
    versions(libtpu=libtpu, jax_cuda12_plugin=jaxlib, jax_cuda12_pjrt=jaxlib)
    assert compiled.missing("tpu") == compiled.missing("cuda") == ""
    versions(libtpu=libtpu.replace(".", "1.", 1))
    assert compiled.missing("tpu")


def test_a_lock_that_is_given_back_is_waited_for(held, capsys):
    held(2)
    compiled._wait(60)
    assert "waiting for the process that holds" in capsys.readouterr().err


def test_a_lock_that_is_kept_is_named(held):
    held(60)
    with pytest.raises(
        compiled.UnavailableError, match=r"another process uses libtpu.*lockfile; waited 0 s: let it end"
    ):
        compiled._wait(0.2)


def test_no_lock(held):
    compiled._wait(0)


def test_the_page_shows_the_record():
    records = json.loads((_timing.RESULTS / "aot.json").read_text())["records"]
    text = aot.PAGE.read_text()
    assert aot.page(text, records) == text
    assert all(record["holds"] for record in records)
    assert max(record["compile_seconds"] for record in records) <= 30
    made = {
        (target.name, program.what)
        for platform in ("tpu", "cuda")
        for target, program in aot.programs(platform)
    }
    assert {(record["target"], record["program"]) for record in records} == made

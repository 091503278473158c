"""Building PolyChord from the package index into an environment."""

import ctypes
import json
import subprocess
import sys

import pytest

from lstmfit.errors import InputError
from lstmfit.sampling.polychord import build


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An empty environment: its prefix is a folder of the test."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    return tmp_path / "environment"


def test_installed_library_is_left_alone(monkeypatch):
    """Done once: the second call starts neither pip nor a compiler, and says the terms again."""
    folder = build.install_polychord()
    before = (folder / "VERSION.json").stat().st_mtime_ns
    monkeypatch.setattr(build, "_require_tools", lambda: pytest.fail("built again"))
    lines = []
    assert build.install_polychord(log=lines.append) == folder
    assert (folder / "VERSION.json").stat().st_mtime_ns == before
    assert "non-commercial use only" in lines[-1]
    assert "arXiv:1502.01856" in lines[-1]
    assert "arXiv:1506.00171" in lines[-1]


def test_what_was_installed_says_what_it_is():
    folder = build.install_polychord()
    record = json.loads((folder / "VERSION.json").read_text())
    assert record["version"] == "1.14"
    assert record["sha256"] == build.COSMOSIS_SHA256
    assert "cosmosis 3.26" in record["source"]
    assert record["changes"] == build.CHANGES
    assert b"PolyChord License Agreement" in (folder / "LICENCE").read_bytes()


def test_library_of_before_the_change_is_built_anew(environment, monkeypatch):
    folder = build.polychord_folder()
    folder.mkdir(parents=True)
    for name in (build.SERIAL_LIBRARY, build.MPI_LIBRARY):
        (folder / name).write_bytes(b"")
    (folder / "VERSION.json").write_text('{"version": "1.14"}')
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="cannot be built"):
        build.install_polychord()


@pytest.mark.slow
def test_build_from_nothing(environment, monkeypatch):
    """The real thing: download, compile, load; serial alone where there is no mpif90."""
    which = build.shutil.which
    monkeypatch.setattr(build.shutil, "which", lambda tool: None if tool == "mpif90" else which(tool))
    lines = []
    folder = build.install_polychord(log=lines.append)
    assert folder == environment / "share" / "lstmfit" / "polychord"
    assert sorted(path.name for path in folder.iterdir()) == ["LICENCE", "VERSION.json", "libchord.so"]
    assert ctypes.CDLL(str(folder / "libchord.so")).polychord_c_interface
    assert any("mpif90 was not found" in line for line in lines)
    assert [path.name for path in folder.parent.iterdir()] == ["polychord"]


def test_missing_compiler(environment, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"gfortran and make not found.*: apt-get install gfortran make"):
        build.install_polychord()
    assert not environment.exists()


def test_environment_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "file"))
    monkeypatch.setattr(build, "_require_tools", lambda: None)
    with pytest.raises(InputError, match="use an environment that you can write to: python3 -m venv"):
        build.install_polychord()


def test_download_that_fails(environment, monkeypatch):
    """pip's own reason is passed on, and nothing is left behind."""
    monkeypatch.setattr(build, "_require_tools", lambda: None)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(InputError, match=r"pip could not download cosmosis 3.26 \(ERROR: .*check the network"):
        build.install_polychord(log=lambda line: None)
    assert list((environment / "share" / "lstmfit").iterdir()) == []


def test_sources_that_are_not_the_expected_ones(tmp_path):
    (tmp_path / "generate.F90").write_text("end module\n")
    with pytest.raises(InputError, match=r"generate\.F90 of cosmosis 3\.26 differs from the expected source"):
        build._change(tmp_path)


def test_compiler_error_is_shown(environment, tmp_path, monkeypatch):
    archive = tmp_path / "empty.tar.gz"
    subprocess.run(["tar", "czf", str(archive), "--files-from", "/dev/null"], check=True)
    monkeypatch.setattr(build, "_download", lambda folder, log: archive)
    with pytest.raises(InputError, match=r"libchord.*so did not compile \(make(\[\d\])?: .*No rule to make target"):
        build.install_polychord(log=lambda line: None)


def test_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build"])
    assert build.main() == 0
    assert "PolyChord 1.14 (changed by lstmfit: grade_frac" in capsys.readouterr().out
    monkeypatch.setattr(build, "install_polychord", lambda force, log: (_ for _ in ()).throw(InputError("no make")))
    assert build.main() == 2
    assert capsys.readouterr().err == "no make\n"

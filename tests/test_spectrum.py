"""Spectra: what is read, what is refused."""

import numpy as np
import pytest

from lstmfit.datasets.spectrum import Spectrum, read_spectrum, read_written_spectrum
from lstmfit.errors import InputError

TABLE = "nu [MHz],w,T [K]\n50.0,1,2.0\n51.0,0,0.0\n52.0,2,-0.5\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(TABLE)
    return path


def test_columns_by_number_and_by_name_and_kelvin(file):
    for columns in (
        {"frequency": 0, "temperature": 2, "weight": 1},
        {"frequency": "nu [MHz]", "temperature": "T [K]", "weight": "w"},
    ):
        spectrum = read_spectrum(file, columns, "K")
        np.testing.assert_array_equal(spectrum.frequency, [50.0, 52.0])
        np.testing.assert_array_equal(spectrum.temperature, [2000.0, -500.0])
        np.testing.assert_array_equal(spectrum.weight, [1.0, 2.0])


def test_no_header_and_comments(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("# a comment\n50,1.5\n51,2.5\n")
    spectrum = read_spectrum(path)
    np.testing.assert_array_equal(spectrum.temperature, [1.5, 2.5])
    np.testing.assert_array_equal(spectrum.weight, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "# nu T\n50 1.5\n51\t2.5\n",
        "  50   1.5  \n  51   2.5\n",
        "nu\tT\n50\t1.5\n51\t2.5\n",
        "nu; T\n50; 1.5\n51; 2.5\n",
        "\n50, 1.5 # first\n51, 2.5\n",
        "freq temp weight\n5.0e1 1.5E0 1\n51 2.5 1\n",
        "50,1.5,\n51,2.5,\n",
        "\ufeff50,1.5\n51,2.5\n",
        "\ufeffnu,T\r\n50,1.5\r\n51,2.5\r\n",
    ],
)
def test_columns_may_be_parted_by_blanks_tabs_and_semicolons(tmp_path, text):
    path = tmp_path / "s.txt"
    path.write_text(text)
    spectrum = read_spectrum(path)
    np.testing.assert_array_equal(spectrum.frequency, [50.0, 51.0])
    np.testing.assert_array_equal(spectrum.temperature, [1.5, 2.5])


def test_what_is_written_reads_back_exactly(tmp_path, rng):
    spectrum = Spectrum(*rng.uniform(1, 2, (3, 7)), truth=rng.normal(size=7))
    spectrum.write(tmp_path / "d.csv")
    back = read_written_spectrum(tmp_path / "d.csv")
    for name in ("frequency", "temperature", "weight", "truth"):
        np.testing.assert_array_equal(getattr(back, name), getattr(spectrum, name))


@pytest.mark.parametrize(
    ("columns", "unit", "message"),
    [
        ({"frequency": 0, "temperature": 5}, "K", "no column 5; columns are 0 to 2"),
        ({"frequency": 0, "temperature": "T"}, "K", r"no column 'T'; the header has nu \[MHz\], w, T \[K\]"),
        ({"frequency": 0, "temperature": 2}, "Jy", "unit is 'Jy'; temperatures can be in K or mK"),
        ({"frequency": 0}, "K", "frequency and temperature are needed"),
        ({"frequency": 1, "temperature": 2}, "K", "frequency must be positive"),
        ({"frequency": 0, "temperature": 1, "weight": 2}, "K", "weights must be finite and not negative"),
    ],
)
def test_bad_columns_and_units_are_refused(file, columns, unit, message):
    with pytest.raises(InputError, match=message):
        read_spectrum(file, columns, unit)


def test_a_written_spectrum_that_was_cut_short_is_noticed(tmp_path, rng):
    path = tmp_path / "d.csv"
    Spectrum(*rng.uniform(1, 2, (3, 7))).write(path)
    whole = path.read_text()
    path.write_text(whole[: whole.rindex(",")])
    with pytest.raises(ValueError, match="data row 7 is not all numbers"):
        read_written_spectrum(path)
    path.write_text(whole[:20])
    with pytest.raises(ValueError, match="no column temperature_mK"):
        read_written_spectrum(path)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no data file"):
        read_spectrum(tmp_path / "none.csv")
    path = tmp_path / "s.csv"
    path.write_text("50,1\n51,nan\n52,3\n")
    with pytest.raises(InputError, match="temperature is not a number in data row 2 "):
        read_spectrum(path)
    path.write_text("# nu, T, w\nnu,T,w\n49,0,0\n50,1,1\n51,,1\n")
    with pytest.raises(InputError, match=r"data row 3 \(comments and header not counted\)"):
        read_spectrum(path, {"frequency": 0, "temperature": 1, "weight": 2})
    for first in ("nan,1", "5.0D1,1", "50.0x,1"):
        path.write_text(f"{first}\n51,2\n")
        with pytest.raises(InputError, match="frequency is not a number in data row 1 "):
            read_spectrum(path)
    path.write_text("50,1\n51,2,3\n")
    with pytest.raises(InputError, match=r"^.* is not a table of numbers between .* in line 2, saw 3\)$"):
        read_spectrum(path)
    path.write_text("50,1\n51,2\n")
    with pytest.raises(InputError, match="no column 'T', as there is no header; give a number from 0 on"):
        read_spectrum(path, {"frequency": 0, "temperature": "T"})
    path.write_text("50,1,0\n51,2,0\n")
    with pytest.raises(InputError, match="every channel has weight zero"):
        read_spectrum(path, {"frequency": 0, "temperature": 1, "weight": 2})
    path.write_text("")
    with pytest.raises(InputError, match="not a table"):
        read_spectrum(path)

"""Spectra: what is read, what is refused."""

import io
import logging
import zipfile

import numpy as np
import pandas as pd
import pytest
import yaml
from anesthetic import MCMCSamples

from lstmfit import Emulator
from lstmfit import config as run_file
from lstmfit.constants import redshift_to_frequency
from lstmfit.datasets.spectrum import Spectrum, read_spectrum, read_written_spectrum
from lstmfit.errors import InputError
from lstmfit.likelihoods.interpolation import interpolation_matrix
from lstmfit.parameters import Parameter, to_array

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
        ({"frequency": 0, "temperature": 5}, "K", "no column 5; give a number from 0 to 2"),
        ({"frequency": 0, "temperature": "T"}, "K", r"no column 'T'; the header has nu \[MHz\], w, T \[K\]"),
        ({"frequency": 0, "temperature": 2}, "Jy", "unit is 'Jy'; expected K or mK"),
        ({"frequency": 0}, "K", "temperature is missing in"),
        ({"frequency": 1, "temperature": 2}, "K", "frequency must be positive"),
        ({"frequency": 0, "temperature": 1, "weight": 2}, "K", "the weight in data row .* is negative or not finite"),
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
    with pytest.raises(ValueError, match="data row 7 has values that are not numbers"):
        read_written_spectrum(path)
    path.write_text(whole[:20])
    with pytest.raises(ValueError, match="no column temperature_mK"):
        read_written_spectrum(path)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no data file"):
        read_spectrum(tmp_path / "none.csv")
    path = tmp_path / "s.csv"
    path.write_text("50,1\n51,inf\n52,3\n")
    with pytest.raises(InputError, match="temperature is not a number in data row 2 "):
        read_spectrum(path)
    path.write_text("# nu, T, w\nnu,T,w\n49,0,0\n50,1,1\n51,,1\n")
    with pytest.raises(InputError, match=r"data row 3 \(not counting comments and header\)"):
        read_spectrum(path, {"frequency": 0, "temperature": 1, "weight": 2})
    for first in ("nan,1", "5.0D1,1", "50.0x,1"):
        path.write_text(f"{first}\n51,2\n")
        with pytest.raises(InputError, match="frequency is not a number in data row 1 "):
            read_spectrum(path)
    path.write_text("50,1\n51,2,3\n")
    with pytest.raises(InputError, match=r"^.* is not a table of numbers .* in line 2, saw 3\); correct the file$"):
        read_spectrum(path)
    path.write_text("50,1\n51,2\n")
    with pytest.raises(InputError, match="no column 'T', as there is no header; give its number, from 0"):
        read_spectrum(path, {"frequency": 0, "temperature": "T"})
    path.write_text("50,1,0\n51,2,0\n")
    with pytest.raises(InputError, match="every channel has weight zero"):
        read_spectrum(path, {"frequency": 0, "temperature": 1, "weight": 2})
    path.write_text("")
    with pytest.raises(InputError, match="not a table"):
        read_spectrum(path)


# ---------------------------------------------------------------- columns that the header names


@pytest.mark.parametrize("weight", ["weight", "Weights", "w", "Wt", "WEIGHT []"])
@pytest.mark.parametrize("comment", ["", "# "])
def test_weights_of_the_header_are_used_and_said(tmp_path, caplog, weight, comment):
    path = tmp_path / "s.csv"
    path.write_text(f"{comment}freq [MHz],T,{weight}\n50,1,2\n51,1e9,0\n52,3,1\n")
    with caplog.at_level(logging.INFO, "lstmfit"):
        spectrum = read_spectrum(path)
    np.testing.assert_array_equal(spectrum.frequency, [50, 52])
    np.testing.assert_array_equal(spectrum.weight, [2, 1])
    assert f"column '{weight}' in the header is used as weight" in caplog.text
    assert "1 of 3 channels are excluded (1 weight zero)" in caplog.text


@pytest.mark.parametrize("flag", ["flag", "Flags", "mask", "is_flagged", "RFI", "bad"])
@pytest.mark.parametrize(("good", "bad"), [("0", "1"), ("0", "4"), ("False", "True"), ("false", "true"), ("0.", "1.")])
def test_flags_of_the_header_are_used_and_said(tmp_path, caplog, flag, good, bad):
    path = tmp_path / "s.csv"
    path.write_text(f"freq,T,{flag}\n50,1,{good}\n51,1e9,{bad}\n52,3,{good}\n")
    with caplog.at_level(logging.INFO, "lstmfit"):
        spectrum = read_spectrum(path)
    np.testing.assert_array_equal(spectrum.frequency, [50, 52])
    np.testing.assert_array_equal(spectrum.weight, 1)
    assert f"column '{flag}' in the header is used as flag" in caplog.text
    assert "1 of 3 channels are excluded (1 flagged)" in caplog.text
    by_number = read_spectrum(path, {"frequency": 0, "temperature": 1, "flag": 2})
    np.testing.assert_array_equal(by_number.frequency, [50, 52])


def test_flags_that_are_none(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("freq,T,flag\n50,1,0\n51,2,perhaps\n")
    with pytest.raises(InputError, match="flag is 'perhaps' in data row 2; expected 0 or False"):
        read_spectrum(path)
    path.write_text("freq,T,flag\n50,1,1\n51,2,1\n")
    with pytest.raises(InputError, match="every channel is flagged, so there is nothing to fit"):
        read_spectrum(path)


@pytest.mark.parametrize("word", ["nan", "NaN", "NAN", "-nan", "--"])
def test_nan_counts_as_flagged(tmp_path, caplog, word):
    path = tmp_path / "s.txt"
    path.write_text(f"50 1 1\n51 {word} 1\n52 3 {word}\n53 4 1\n")
    with caplog.at_level(logging.INFO, "lstmfit"):
        spectrum = read_spectrum(path, {"frequency": 0, "temperature": 1, "weight": 2})
    np.testing.assert_array_equal(spectrum.frequency, [50, 53])
    assert "2 of 4 channels are excluded" in caplog.text


def test_a_frequency_that_appears_twice_is_refused(tmp_path):
    path = tmp_path / "s.txt"
    rows = "".join(f"{nu} 1.5\n" for nu in range(50, 60))
    path.write_text(rows + rows)
    with pytest.raises(InputError, match=r"50 MHz appears twice, in data rows 1 and 11 \(10 repeated in all\); aver"):
        read_spectrum(path)
    # A flagged channel is not fitted, so it repeats nothing.
    path.write_text("50 1 1\n50 2 0\n51 1 1\n")
    assert len(read_spectrum(path, {"frequency": 0, "temperature": 1, "weight": 2}).frequency) == 2


@pytest.mark.parametrize("byte", [0, 1, 8, 11, 27, 127])
@pytest.mark.parametrize("where", ["60,-2{}9\n61,1\n", "nu{},T\n60,1\n", "# a{}\n60,1\n61,2\n"])
def test_control_characters_are_refused(tmp_path, byte, where):
    path = tmp_path / "s.csv"
    path.write_text(where.format(chr(byte)))
    with pytest.raises(InputError, match=rf"control character \(byte 0x{byte:02x}\) in line 1, so it is damaged"):
        read_spectrum(path)


def test_other_encodings(tmp_path):
    path = tmp_path / "s.csv"
    path.write_bytes("# 20 \u00b0C \u00b1 1\n50,1\n51,2\n".encode("latin-1"))
    assert len(read_spectrum(path).frequency) == 2
    path.write_bytes("50,1\n51,2\n".encode("utf-16"))
    with pytest.raises(InputError, match="text in UTF-16; save it as UTF-8"):
        read_spectrum(path)


# ---------------------------------------------------------------- the axis

NU = np.linspace(50.0, 100.0, 40)
FIRST_TWO = {"frequency": 0, "temperature": 1}


def table(path, *columns, header=""):
    np.savetxt(path, np.column_stack(columns), header=header, comments="", fmt="%.9g")
    return path


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("axis", "header", "keys"),
    [
        (1420.405751768 / NU - 1, "", "columns: {redshift: 0, temperature: 1}"),
        (1420.405751768 / NU - 1, "z T", "columns: {redshift: 0, temperature: 1}"),
        (1420.405751768 / NU - 1, "Redshift T", "columns: {redshift: 0, temperature: 1}"),
        (NU * 1e6, "", "columns: {frequency: 0, temperature: 1, frequency_unit: Hz}"),
        (NU * 1e6, "freq_Hz T", "columns: {frequency: 0, temperature: 1, frequency_unit: Hz}"),
        (NU * 1e3, "", "columns: {frequency: 0, temperature: 1, frequency_unit: kHz}"),
        (NU * 1e-3, "", "columns: {frequency: 0, temperature: 1, frequency_unit: GHz}"),
        (NU * 1e-3, "nu[GHz] T", "columns: {frequency: 0, temperature: 1, frequency_unit: GHz}"),
    ],
)
def test_the_axis_is_recognised_and_its_keys_work(tmp_path, axis, header, keys, reverse):
    rows = slice(None, None, -1 if reverse else 1)
    path = table(tmp_path / "s.txt", axis[rows], 30 + NU[rows], header=header)
    if header:
        # A header that names both columns is believed; columns that contradict it are not.
        np.testing.assert_allclose(read_spectrum(path).frequency, NU[rows], rtol=1e-7)
    with pytest.raises(InputError) as found:
        read_spectrum(path, FIRST_TWO)
    assert keys in str(found.value)
    assert "band" not in str(found.value)
    spectrum = read_spectrum(path, yaml.safe_load(keys)["columns"])
    np.testing.assert_allclose(spectrum.frequency, NU[rows], rtol=1e-7)


def test_low_frequencies_in_mhz_can_be_said(tmp_path):
    path = table(tmp_path / "s.txt", np.linspace(5, 50, 40), NU)
    with pytest.raises(InputError, match=r"look like redshift; .* or frequency_unit: MHz in columns if correct"):
        read_spectrum(path)
    columns = {"frequency": 0, "temperature": 1}
    assert read_spectrum(path, columns | {"frequency_unit": "MHz"}).frequency[0] == 5
    for header in ("frequency T", "nu_MHz T", "f(MHz) T"):
        assert read_spectrum(table(path, np.linspace(5, 50, 40), NU, header=header)).frequency[0] == 5


@pytest.mark.parametrize(("header", "named"), [("index freq T", True), ("", False)])
def test_row_numbers_are_no_frequencies(tmp_path, header, named):
    path = table(tmp_path / "s.txt", np.arange(1, 41), NU, 30 + NU, header=header)
    with pytest.raises(InputError, match=r"columns: \{frequency: 1, temperature: 2\}"):
        read_spectrum(path, FIRST_TWO if named else None)
    if named:
        np.testing.assert_allclose(read_spectrum(path).frequency, NU)


def test_columns_in_another_order_are_refused_with_their_own(tmp_path):
    path = table(tmp_path / "s.txt", 30 + NU, NU, header="T_K freq_MHz")
    keys = r"columns: \{frequency: 1, temperature: 0\} and unit: K"
    with pytest.raises(InputError, match=f"read as the frequency, but its name is 'T_K'; set {keys}"):
        read_spectrum(path, FIRST_TWO)
    for columns in ({"frequency": 1, "temperature": 0}, None):
        assert read_spectrum(path, columns).temperature[0] == pytest.approx(80e3)


def test_weights_are_no_temperature(tmp_path):
    edges = tmp_path / "e.csv"
    rows = "".join(f"{n},1,4{n},0\n" for n in range(50, 70))
    edges.write_text(f"Frequency [MHz], Weight, a: Tsky [K], b: Tres1 [K]\n{rows}")
    keys = r"columns: \{frequency: 0, temperature: 2, weight: 1\} and unit: K"
    with pytest.raises(InputError, match=f"its name is 'Weight'; set {keys}"):
        read_spectrum(edges, FIRST_TWO)
    path = table(tmp_path / "s.txt", NU, NU > 60, 30 + NU)
    with pytest.raises(InputError, match=r"all 0 or 1, .* weights; set " + keys.removesuffix(" and unit: K")):
        read_spectrum(path)
    with pytest.raises(InputError, match=r"all 0 or 1, .* no other column"):
        read_spectrum(table(path, NU, NU > 60))
    # A spectrum without a signal is one.
    assert not read_spectrum(table(path, NU, 0 * NU)).temperature.any()


@pytest.mark.parametrize("separator", [" ", ","])
def test_transposed_tables_are_refused(tmp_path, separator):
    path = tmp_path / "s.txt"
    np.savetxt(path, np.array([NU, 30 + NU]), delimiter=separator)
    with pytest.raises(InputError, match="2 rows of 40 numbers, so it looks transposed; one row per channel"):
        read_spectrum(path)


# ---------------------------------------------------------------- units


@pytest.mark.parametrize("header", ["nu,T [K]", "nu,T_K", "nu,T (K)", "nu,temperature / K", "nu,T in K"])
def test_a_unit_of_the_header_is_read(tmp_path, header, caplog):
    path = tmp_path / "s.csv"
    path.write_text(f"{header}\n50,1.5\n51,2.5\n")
    with caplog.at_level(logging.INFO, "lstmfit"):
        assert read_spectrum(path).temperature[0] == 1500
    assert "temperatures are in K, according to the header" in caplog.text
    assert read_spectrum(path, unit="K").temperature[0] == 1500
    with pytest.raises(InputError, match="header has temperatures in K, but unit is mK; set unit: K"):
        read_spectrum(path, unit="mK")
    path.write_text(f"{header.replace('K', 'mK')}\n50,1.5\n51,2.5\n")
    assert read_spectrum(path).temperature[0] == 1.5
    with pytest.raises(InputError, match="header has temperatures in mK, but unit is K; set unit: mK"):
        read_spectrum(path, unit="K")
    path.write_text("nu,T [uK]\n50,1.5\n51,2.5\n")
    with pytest.raises(InputError, match=r"temperatures in \[uK\]; convert them"):
        read_spectrum(path)


def test_a_run_file_leaves_the_unit_to_the_header_and_keeps_what_it_says(tmp_path):
    """Also once it has been written out: a resolved run file is one that can be fitted again."""
    content = {
        "emulator": "echo21",
        "data": {"file": "d.csv"},
        "likelihood": {"global_signal": {"noise": {"sigma": 25}}},
    }
    for given in (None, "mK", "K"):
        data = content["data"] | ({} if given is None else {"unit": given})
        config = run_file.validate(content | {"data": data}, "run")
        assert config.data["global_signal"].given_unit == given
        run_file.dump(config, tmp_path / "run.yaml")
        assert run_file.load(tmp_path / "run.yaml").data["global_signal"].given_unit == given
    # A run file of version 0.1 has the unit in it, and is the same run.
    old = run_file.validate(content | {"data": {"file": "d.csv", "unit": "mK"}}, "run")
    assert run_file.validate(content, "run").data == old.data


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"frequency": 0, "redshift": 1, "temperature": 2}, "give either frequency or redshift"),
        ({"temperature": 1}, "give either frequency or redshift"),
        ({"frequency": 0, "temperature": 1, "wieght": 2}, "unknown key 'wieght'; did you mean 'weight'"),
        ({"frequency": 0, "temperature": True}, "temperature is True; give the number of the column, from 0"),
        ({"frequency": 0, "temperature": -1}, "temperature is -1; give the number of the column"),
        ({"frequency": 0, "temperature": 1.0}, "temperature is 1.0; give the number of the column"),
        ({"frequency": 0, "temperature": None}, "temperature is None; give the number of the column"),
        ({"frequency": 0, "temperature": [1]}, r"temperature is \[1\]; give the number of the column"),
        ({"frequency": 0, "temperature": 0}, "uses a column twice"),
        ({"frequency": 0, "temperature": 1, "frequency_unit": "THz"}, "frequency_unit is 'THz'; give Hz, kHz"),
        ({"redshift": 0, "temperature": 1, "frequency_unit": "MHz"}, "frequency_unit is given for a redshift axis"),
        ({"frequency": 0, "temperature": 1, "sigma": 1}, "uses a column twice"),
        ([0, 1], r"columns is \[0, 1\]; give a mapping"),
    ],
)
def test_mistakes_in_columns_are_one_line(tmp_path, columns, message):
    path = table(tmp_path / "s.txt", NU, 30 + NU, NU)
    with pytest.raises(InputError, match=message):
        read_spectrum(path, columns)
    content = {"emulator": "echo21", "data": {"file": str(path), "columns": columns}}
    with pytest.raises(InputError, match=message):
        run_file.validate(content | {"likelihood": {"global_signal": {"noise": {"sigma": 1}}}}, "run")


# ---------------------------------------------------------------- arrays


def test_arrays_are_read(tmp_path):
    array = np.column_stack([NU, 30 + NU, np.where(NU > 60, 1.0, 0.0)])
    named = {"frequency": NU, "weight": array[:, 2], "T_K": array[:, 1]}
    structured = np.array(list(map(tuple, array)), dtype=[("nu", float), ("T", float), ("weight", float)])
    files = {"plain": array, "single": array.astype("f4"), "structured": structured}
    for name, content in files.items():
        np.save(tmp_path / f"{name}.npy", content)
        columns = {"frequency": 0, "temperature": 1, "weight": 2}
        spectrum = read_spectrum(tmp_path / f"{name}.npy", columns)
        assert (len(spectrum.frequency), spectrum.temperature[-1]) == (int(array[:, 2].sum()), 130.0)
    np.savez(tmp_path / "one.npz", array)
    assert len(read_spectrum(tmp_path / "one.npz").frequency) == 40
    np.savez(tmp_path / "named.npz", **named)
    spectrum = read_spectrum(tmp_path / "named.npz", {"frequency": "frequency", "temperature": "T_K"})
    assert (len(spectrum.frequency), spectrum.temperature[-1]) == (int(array[:, 2].sum()), 130e3)
    # By content: the name may say anything.
    (tmp_path / "named.npz").rename(tmp_path / "renamed.npy")
    assert len(read_spectrum(tmp_path / "renamed.npy", {"frequency": "frequency", "temperature": "T_K"}).frequency)
    (tmp_path / "plain.npy").rename(tmp_path / "plain.txt")
    assert len(read_spectrum(tmp_path / "plain.txt").frequency) == 40


def saved(array, save=np.save, **options):
    file = io.BytesIO()
    save(file, array, **options)
    return file.getvalue()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


HUGE = saved(np.zeros((2, 2))).replace(b"(2, 2), }", b"(99999999999, 2), }").replace(b" " * 9 + b"\n", b"\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04 nonsense",
        saved(np.zeros((5, 2)))[:-9],
        saved(np.array([{"a": 1}, None], dtype=object)),
        saved(np.array(3.0)),
        saved(np.zeros(5)),
        saved(np.zeros((5, 2, 2))),
        saved(np.zeros((0, 2))),
        saved(np.zeros((5, 2), dtype=complex)),
        saved(np.array([["a", "b"], ["c", "d"]])),
        saved(np.zeros((5, 2), dtype="M8[s]")),
        saved(np.zeros(5), np.savez),
        zipped(a="text", b="text"),
        zipped(**{"a.npy": "nonsense"}),
        HUGE,
        b"\x89HDF\r\n\x1a\n" + bytes(90),
        b"\xff" * 50,
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'shape': (" + b" " * 90 + b"\n" + bytes(80),
        b"words\nand words\n",
        b"50\n51\n",
    ],
)
def test_files_that_are_no_spectrum_are_one_line(tmp_path, content):
    path = tmp_path / "s.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match="table of numbers") as found:
        read_spectrum(path)
    assert len(str(found.value)) < 400
    assert "\n" not in str(found.value)


# ---------------------------------------------------------------- the emulator's band

GRID = np.linspace(5.0, 50.0, 451)


@pytest.mark.parametrize("digits", [2, 3, 4, 6, 9])
def test_the_grid_itself_in_few_digits_is_inside(digits):
    frequency = np.round(redshift_to_frequency(GRID), digits)
    matrix = interpolation_matrix(GRID, frequency)
    shape = np.exp(-0.5 * (GRID - 17) ** 2)
    np.testing.assert_allclose(shape if matrix is None else matrix @ shape, shape, atol=2e-2 if digits < 4 else 1e-3)


def test_the_band_that_is_suggested_fits_and_loses_no_good_channel():
    own = redshift_to_frequency(GRID)
    for frequency in (np.linspace(20.0, 150.0, 300), np.linspace(60.0, 300.0, 900), np.append(own, 20.0)):
        with pytest.raises(InputError, match="band:") as found:
            interpolation_matrix(GRID, frequency)
        low, high = yaml.safe_load(str(found.value).split("data: ")[1])["band"]
        inside = frequency[(frequency >= low) & (frequency <= high)]
        interpolation_matrix(GRID, inside)
        z = 1420.405751768 / frequency - 1
        assert len(inside) == np.sum((z >= 5 - 1e-9) & (z <= 50 + 1e-9))


def test_no_band_is_suggested_that_drops_most_of_the_channels():
    with pytest.raises(InputError, match="check the emulator and that the first column is in MHz") as found:
        interpolation_matrix(GRID, np.linspace(1.0, 30.0, 50))
    assert "[" not in str(found.value)


def test_rows_longer_than_the_header_are_refused(tmp_path):
    """Columns would be taken for their neighbours."""
    path = tmp_path / "s.csv"
    path.write_text("nu,T\n50,1,2\n51,2,3\n")
    with pytest.raises(InputError, match="not a table of numbers"):
        read_spectrum(path)
    path.write_text("nu,T\n50,1,\n51,2,\n")
    assert read_spectrum(path).temperature[1] == 2


@pytest.mark.parametrize("text", ["50,1\n51\n", "nu,T\n50,1\n51\n", "nu,T\n50,1\n51,\n", "50,1\n51,,\n"])
def test_a_gap_is_no_flag(tmp_path, text):
    """A file that was cut short in its last row."""
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"temperature is not a number in data row 2|not a table of numbers"):
        read_spectrum(path)


def test_a_dataframe_is_taken_by_name():
    frame = pd.DataFrame({"weight": np.ones(40), "T [K]": 30 + NU, "freq": NU})
    frame.loc[3, "weight"] = 0.0
    frame.loc[5, "T [K]"] = np.nan
    spectrum = read_spectrum(frame, {"frequency": "freq", "temperature": "T [K]"})
    assert (len(spectrum.frequency), spectrum.temperature[0]) == (38, 80e3)
    with pytest.raises(InputError, match=r"the table: no column 'nu'; the header has weight, T \[K\], freq"):
        read_spectrum(frame, {"frequency": "nu", "temperature": "T [K]"})


PARAMETERS = (Parameter("a", 1.0, 2.0), Parameter("b", -1.0, 1.0))


def test_theta_as_pandas_has_it():
    frame = pd.DataFrame({"logL": [0.0, 1.0], "b": [3, 4], "a": [1, 2]})
    np.testing.assert_array_equal(to_array(frame, PARAMETERS), [[1, 3], [2, 4]])
    np.testing.assert_array_equal(to_array(frame.iloc[1], PARAMETERS), [2, 4])
    samples = MCMCSamples(data=frame[["b", "a"]].to_numpy(), columns=["b", "a"], labels=["$b$", "$a$"])
    np.testing.assert_array_equal(to_array(samples, PARAMETERS), [[1, 3], [2, 4]])
    with pytest.raises(InputError, match="theta: no column a; the table has logL, b, expected a, b"):
        to_array(frame[["logL", "b"]], PARAMETERS)
    with pytest.raises(InputError, match="theta: no column b; the table has a"):
        to_array(frame["a"].rename({0: "a"}).iloc[:1], PARAMETERS)
    with pytest.raises(InputError, match="not all numbers"):
        to_array(frame.astype(str) + "x", PARAMETERS)
    with pytest.raises(InputError, match="2 columns are called a"):
        to_array(frame[["a", "a", "b"]], PARAMETERS)
    emulator = Emulator.load("echo21")
    theta = np.array([[0.1, 1.0, 0.05, 1e4, 0.5, 2.64, 1.5]] * 2)
    table = pd.DataFrame(theta[:, ::-1], columns=list(emulator.names)[::-1])
    np.testing.assert_array_equal(emulator(table), emulator(theta))
    np.testing.assert_array_equal(emulator(table.iloc[0]), emulator(theta[0]))


@pytest.mark.parametrize(
    "place", ["50 1\n51 {0}\n", "50 1\n{0} 2\n", "nu T w\n50 1 1\n51 2 {0}\n", "nu T flag\n50 1 x{0}\n"]
)
def test_numbers_of_400_digits_are_one_line(tmp_path, place):
    path = tmp_path / "s.txt"
    path.write_text(place.format("9" * 400))
    with pytest.raises(InputError) as found:
        read_spectrum(path)
    assert len(str(found.value)) < 400

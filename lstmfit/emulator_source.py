"""Choice of an emulator: a name, a file or a folder, and its parameters if its files do not name them."""

from pathlib import Path

from pydantic import model_serializer, model_validator

from lstmfit.files import user_path
from lstmfit.schema import Block, shown
from lstmfit.yaml_files import dump_yaml, parse_yaml

GLOBALEMU = ("model.h5", "preprocess_settings.pkl")
"""Files by which a globalemu folder is recognised; it has at least one of them."""
GLOBALEMU_OTHERS = ("z.txt", "data_mins.txt", "data_maxs.txt", "cdf.txt", "AFB.txt", "labels_stds.npy")


def is_globalemu(path) -> bool:
    """Whether a path is a globalemu folder, complete or not."""
    return Path(path).is_dir() and any((Path(path) / name).exists() for name in GLOBALEMU)


def is_emulator_path(path) -> bool:
    """Whether a path is a file or a globalemu folder; other folders may have the name of a shipped emulator."""
    return Path(path).is_file() or is_globalemu(path)


def files_of(path) -> list[Path]:
    """Files that an emulator consists of: the file with its minima and maxima, or the files of its folder.

    Parameters
    ----------
    path : path
        A file or folder, see `is_emulator_path`.
    """
    path = Path(path)
    if path.is_dir():
        return [path / name for name in (*GLOBALEMU, *GLOBALEMU_OTHERS) if (path / name).is_file()]
    beside = extremes_of(path, ".npy") + extremes_of(path, ".txt")
    return [path, *(file for file in beside if file.is_file())]


def extremes_of(path, suffix: str) -> list[Path]:
    """Paths of the minima and maxima of a 21cmKAN (.npy) or 21cmLSTM (.txt) emulator, from the name of its file."""
    label = Path(path).stem.removeprefix("emulator_")
    return [Path(path).with_name(f"train_{end}_{label}{suffix}") for end in ("mins", "maxs")]


class EmulatorSource(Block):
    """An emulator in a run file or a command: a string, or a mapping, which may also be written as a string.

    Parameters
    ----------
    file : str
        Name of a shipped emulator, path of a file or folder, or ``21cmemu:mcg``.
    parameters : str, optional
        Parameters of another group's emulator: ``21cmgem``, ``ares`` or a YAML file. By default those that its files
        name. See `lstmfit.datasets.specs.find_spec`.
    """

    file: str
    parameters: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data):
        if is_mapping_text(data):
            data = parse_yaml(data, "emulator")
        if isinstance(data, str):
            return {"file": data}
        if not isinstance(data, (dict, EmulatorSource)):
            raise ValueError(
                f"{shown(data)} is not a name or path; give one, or {{file: PATH, parameters: 21cmgem}}"
            )
        return data

    @model_serializer(mode="wrap")
    def _short(self, handler):
        return self.file if self.parameters is None else handler(self)

    def __str__(self):
        if self.parameters is None:
            return self.file
        return f"{{{', '.join(dump_yaml(self.model_dump()).strip().splitlines())}}}"

    def beside(self, folder: Path) -> "EmulatorSource":
        """The same source with paths relative to a folder, if they exist there."""
        changes, path = {}, user_path(self.file, "emulator")
        # The name of a shipped emulator is not a path, unless a file has this name.
        if is_emulator_path(folder / path) or path != Path(self.file):
            changes["file"] = str(folder / path)
        if self.parameters is not None and (folder / user_path(self.parameters, "parameters")).is_file():
            changes["parameters"] = str(folder / user_path(self.parameters, "parameters"))
        return self.model_copy(update=changes)


def is_mapping_text(source) -> bool:
    """Whether a source is a mapping written as a string: ``{file: FOLDER, parameters: ares}``."""
    return isinstance(source, str) and source.lstrip().startswith("{")

"""The LSTM emulator: network, training, file format, engines and error metrics."""

from typing import Any

__all__ = ["Emulator"]


def __getattr__(name: str) -> Any:
    if name == "Emulator":
        from lstmfit.emulator.emulator import Emulator

        return Emulator
    raise AttributeError(f"module 'lstmfit.emulator' has no attribute {name!r}")

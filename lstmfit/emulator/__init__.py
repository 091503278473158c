"""The LSTM emulator: network, training, file format, engines and error metrics."""

__all__ = ["Emulator"]


def __getattr__(name):
    if name == "Emulator":
        from lstmfit.emulator.emulator import Emulator

        return Emulator
    raise AttributeError(f"module 'lstmfit.emulator' has no attribute {name!r}")

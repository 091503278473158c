"""Sampling: PolyChord built, called, run side by side or over MPI."""

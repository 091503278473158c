"""PolyChord: built, loaded, called in a thread of its own; side by side in processes, or over MPI ranks."""

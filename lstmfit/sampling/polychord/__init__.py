"""PolyChord: building and loading the library, and running it in one process, in parallel, or over MPI."""

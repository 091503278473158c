"""Samplers behind one interface: PolyChord (built, loaded, run in parallel or over MPI), nautilus and BlackJAX."""

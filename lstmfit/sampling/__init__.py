"""Samplers: PolyChord built, called, run side by side or over MPI; nautilus; BlackJAX; one interface above them."""

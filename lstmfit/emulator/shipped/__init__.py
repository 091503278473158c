"""Emulator files that ship, with their test sets."""

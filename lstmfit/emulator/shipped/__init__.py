"""Shipped emulator files and their test sets."""

"""Run files that ship."""

"""Analysis of finished fits: chains, evidence, emulation bias, plots and reports."""

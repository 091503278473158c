"""What comes after a fit: chains, evidence, pictures."""

"""Whether the candidate is worse, and who is told."""

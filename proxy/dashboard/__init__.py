"""The pages that operators look at, served by the control plane."""

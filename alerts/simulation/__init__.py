"""The guard on a simulated clock: traffic with known faults, our rule and others on the same streams."""

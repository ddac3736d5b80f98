"""From what users clicked to the next model."""

"""What is done away from the traffic: training, measuring, calibrating."""

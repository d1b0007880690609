"""Line searches: step sizes along a direction, from evaluations of the loss."""

"""Speed and memory, as ratios between engines measured in one run, each engine in its own process."""

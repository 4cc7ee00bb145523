"""GDAS: searching for a robust neural architecture in four GPU hours (CVPR 2019)."""

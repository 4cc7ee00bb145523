"""What every paper compares with: DARTS itself, and random cells."""

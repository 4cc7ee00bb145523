"""What the benchmark times and draws."""

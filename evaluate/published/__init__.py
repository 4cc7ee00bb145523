"""What the papers print: the one place where their figures stand."""

"""What a program costs before it runs: its arithmetic and traffic, counted in its compiled text."""

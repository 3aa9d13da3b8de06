"""Tables, figures and statistics of runs and studies, and the counting of thoughts in responses."""

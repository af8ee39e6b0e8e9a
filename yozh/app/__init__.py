"""What a person meets: the command line, the progress line, the run folder and its report."""

"""Results in a browser of this machine: looked at, or labelled by people who see nothing of what is known."""

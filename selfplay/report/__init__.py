"""One page about results: figures, and a browser of every conversation with every candidate; needs no network."""

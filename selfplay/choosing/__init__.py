"""What of the ranked candidates becomes data: chosen turns, pairs, and what choosing cost in variety."""

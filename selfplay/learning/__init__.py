"""Learns rules and ranking weights from judged turns."""

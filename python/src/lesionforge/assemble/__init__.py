"""Assemble: the table of scans that each experiment arm trains and validates on."""

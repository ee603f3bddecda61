"""Heads with known anatomy and lesions, made from the template; a cohort to try the whole chain on."""

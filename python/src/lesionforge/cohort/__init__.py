"""Cohort: check a samplesheet, split it by subject, plan the synthetic scans."""

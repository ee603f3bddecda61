"""Train: the cascade of two 3-D patch networks (Valverde et al., NeuroImage 2017)."""

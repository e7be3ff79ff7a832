"""The main job, shown: ``python -m demo`` (or ``make run``) starts a real control plane and lets a storm not happen."""

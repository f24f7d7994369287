"""What a run is. In: flags and TOML presets. Out: frozen dataclasses, checked field by field. Open `run.py` first."""

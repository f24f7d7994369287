"""Who holds what. In: a layout and what torchrun says of this process. Out: a checked plan, joined process groups. Open `plan.py` first."""

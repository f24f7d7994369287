"""Turn a general LLaMA into an astronomy LLaMA and prove what that changed.

Folders are stages, and stages hand each other files whose contents are typed in `records`:
corpus -> data -> training (model, parallel, ops) -> checkpoint -> evaluation -> report.
"""

__version__ = "0.1.0"

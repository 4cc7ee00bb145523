"""EDAS: efficient and differentiable architecture search (Hong, Ahn and Kim)."""

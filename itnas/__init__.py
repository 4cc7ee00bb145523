"""ITNAS: inter-layer transition in neural architecture search (Ma, Zhang, Xia and Tao)."""

"""The shape of the demo network, and the figures that follow from it.

Knows nothing of torch: the answers quote these figures, and the tests compare them with the file.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """A Mistral-architecture network; every matrix row is a multiple of 32, as Q8_0 needs."""

    vocab: int = 32768
    dim: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 2
    hidden: int = 704
    context: int = 2048
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Numbers per attention head."""
        return self.dim // self.heads

    @property
    def matrix_weights(self) -> int:
        """Weights in matrices: the tied embedding once, and every layer's seven matrices."""
        attention = 2 * self.dim * self.dim + 2 * self.dim * self.kv_heads * self.head_dim
        return self.vocab * self.dim + self.layers * (attention + 3 * self.dim * self.hidden)

    @property
    def parameters(self) -> int:
        """All the weights, norms included."""
        return self.matrix_weights + self.dim * (2 * self.layers + 1)

    @property
    def file_megabytes(self) -> int:
        """The GGUF's size in MB (10**6 bytes), rounded: Q8_0 takes 34 bytes for 32 weights, the tokenizer 0.75 MB."""
        return round((self.matrix_weights * 34 / 32 + 750_000) / 1e6)

    @property
    def millions(self) -> str:
        """The parameter count as the answers say it, in millions with one decimal."""
        return f"{self.parameters / 1e6:.1f}"


CONFIG = Config()

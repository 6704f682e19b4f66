"""The network in PyTorch: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases, tied embeddings.

It knows nothing of text. Its vocabulary is *compact*: one row for each token the corpus uses, and a last row `unseen`
that stands for all the others, whose identical rows are counted in the softmax by adding log(how many they are).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import Config


def rotations(config: Config, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position's angles, each (length, head_dim / 2)."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32), config.rope_base**-half)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs, the order llama.cpp uses for this architecture. x: (B, H, T, head_dim)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Attention(nn.Module):
    """Causal self-attention; groups of query heads share one key and value head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        narrow = config.kv_heads * config.head_dim
        self.q = nn.Linear(config.dim, config.dim, bias=False)
        self.k = nn.Linear(config.dim, narrow, bias=False)
        self.v = nn.Linear(config.dim, narrow, bias=False)
        self.o = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, dim = x.shape
        heads, kv_heads, size = self.config.heads, self.config.kv_heads, self.config.head_dim
        q = rotate(self.q(x).view(batch, length, heads, size).transpose(1, 2), cos, sin)
        k = rotate(self.k(x).view(batch, length, kv_heads, size).transpose(1, 2), cos, sin)
        v = self.v(x).view(batch, length, kv_heads, size).transpose(1, 2)
        k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
        mixed = functional.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        return self.o(mixed.transpose(1, 2).reshape(batch, length, dim))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.dim, config.hidden, bias=False)
        self.up = nn.Linear(config.dim, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """Normalise, attend, add; normalise, SwiGLU, add."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.ffn = SwiGLU(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class Demo(nn.Module):
    """The whole network over a compact vocabulary of `kept` tokens and one `unseen` row."""

    def __init__(self, config: Config, kept: int) -> None:
        super().__init__()
        self.config = config
        self.unseen = kept
        self.embedding = nn.Embedding(kept + 1, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        bias = torch.zeros(kept + 1)
        bias[kept] = math.log(config.vocab - kept)
        self.register_buffer("share", bias, persistent=False)
        self.apply(self._start)

    def _start(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, (Attention, SwiGLU)):
            # What is added to the residual stream starts smaller the deeper the network.
            last = module.o if isinstance(module, Attention) else module.down
            nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * self.config.layers))

    def hidden(self, ids: Tensor) -> Tensor:
        """Rows (B, T) of the compact vocabulary to states (B, T, dim), normalised for the output."""
        x = self.embedding(ids)
        cos, sin = (t.to(x.device) for t in rotations(self.config, ids.shape[1]))
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """States (..., dim) to logits (..., kept + 1); the last is for all unseen tokens together."""
        return functional.linear(states, self.embedding.weight) + self.share

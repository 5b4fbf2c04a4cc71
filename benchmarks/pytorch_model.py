"""ReGLA's decoder in PyTorch, as one would write it there for a CPU: the peer that pytorch_peer.py
measures beside `regla bench`. Sizes: B batch, T time, H heads, K features of a head, V values, N
chunks, C tokens of a chunk, D model width. Mixers: `regla` with its defaults, and `softmax`.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

NORM_EPSILON = 1e-30  # mixer.norm_epsilon


def naive_recurrence(q, k, u, log_b, log_s):
    """S <- e^(log_b + log_s) S + k u^T, o = q S, token by token: what everything else must equal.

    q, k [B, T, H, K], u and log_b [B, T, H, V], log_s [B, T, H]: the refined gate on the value
    axis, and the decay by the keys' running maximum.
    """
    decay = torch.exp(log_b + log_s.unsqueeze(-1)).unsqueeze(-2)  # [B, T, H, 1, V]
    state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], u.shape[3])
    outputs = []
    for t in range(q.shape[1]):
        state = decay[:, t] * state + k[:, t].unsqueeze(-1) * u[:, t].unsqueeze(-2)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(outputs, 1)


def chunked_recurrence(q, k, u, log_b, log_s, chunk):
    """The same, C tokens at a time, with every exponent a sum of logs inside one chunk and at most
    0: nothing can overflow, however fast the gates forget.

        o_t[j] = sum_{s<=t} (q_t k_s) e^(sum log F_{s+1..t}[j]) u_s[j] + e^(sum log F_{1..t}[j]) (q_t S)[j]
    """
    B, T, H, _ = q.shape
    log_f = log_b + log_s.unsqueeze(-1)
    padding = -T % chunk
    if padding:  # k = 0 and F = 1: nothing is written, nothing decays
        q, k, u, log_f = (F.pad(x, (0, 0, 0, 0, 0, padding)) for x in (q, k, u, log_f))
    N = (T + padding) // chunk

    def chunks(x):  # [B, T, H, .] -> [B, H, N, C, .]
        return x.reshape(B, N, chunk, H, x.shape[-1]).permute(0, 3, 1, 2, 4).contiguous()

    q, k, u, log_f = chunks(q), chunks(k), chunks(u), chunks(log_f)
    beta = log_f.cumsum(-2)  # [B, H, N, C, V], sum log F_{1..t}
    last = beta[..., -1:, :]
    # Between chunks: what each writes, and a scan over N states. Gradients of unbind are one stack,
    # those of written[:, :, n] would be N tensors of zeros as large as `written`.
    written = (k.transpose(-1, -2) @ (torch.exp(last - beta) * u)).unbind(2)  # N of [B, H, K, V]
    keep = torch.exp(last).unbind(2)  # N of [B, H, 1, V]
    state = torch.zeros_like(written[0])
    before = [state]
    for n in range(N - 1):
        state = torch.addcmul(written[n], keep[n], state)
        before.append(state)
    carried = torch.exp(beta) * (q @ torch.stack(before, 2))
    # Inside a chunk: a decay per pair of tokens and value, never e^(-beta). One row of pairs at a
    # time, in all chunks: temporaries [.., C, C, V] at once took three times as long.
    scores = (q @ k.transpose(-1, -2)).unsqueeze(-1)  # [B, H, N, C, C, 1]
    inside = []
    for t in range(chunk):
        decayed = torch.exp(beta[..., t:t + 1, :] - beta[..., :t + 1, :]) * u[..., :t + 1, :]
        inside.append((scores[..., t, :t + 1, :] * decayed).sum(-2))
    o = (carried + torch.stack(inside, -2)).permute(0, 2, 3, 1, 4).reshape(B, N * chunk, H, -1)
    return o[:, :T]


def refined_gate(z_g, z_r):
    """log F = log g + log(g + 2 r (1 - g))   (Eq. 16)"""
    g = torch.sigmoid(z_g)
    return F.logsigmoid(z_g) + torch.log(g + 2 * torch.sigmoid(z_r) * (1 - g))


def rotated(x, cosine, sine):
    """Rotary positions on x [B, T, H, K], half-split."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)


def rotation(length, size, base=10000.0):
    frequency = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float()[:, None], angle.sin().float()[:, None]  # [T, 1, K / 2]


class Regla(nn.Module):
    """Safe exponential, refined gate on the value axis, running maximum, stable norm."""

    def __init__(self, c):
        super().__init__()
        self.H, self.V, self.chunk = c["heads"], c["hidden"] // c["heads"], c["chunk"]
        self.rotates = c["rope"] == "full"
        self.projections = nn.Linear(c["hidden"], 5 * c["hidden"])  # query, key, value, gate, refine
        self.gain = nn.Parameter(torch.ones(self.H, self.V))
        self.output = nn.Linear(c["hidden"], c["hidden"])
        self.scale = 1 / (math.e * math.sqrt(self.V * (math.e**2 - 1)))  # variance, Theorem 3.1
        self.recurrence = lambda *inputs: chunked_recurrence(*inputs, self.chunk)

    def forward(self, x, cosine, sine):
        B, T, D = x.shape
        q, k, v, z_g, z_r = self.projections(x).view(B, T, 5, self.H, self.V).unbind(2)
        if self.rotates:
            q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
        # The stable norm cancels what maxima do, so that they need no gradient.
        q = torch.exp(q - q.detach().amax(-1, keepdim=True)) * self.scale
        m = k.detach().amax(-1).cummax(1).values  # [B, T, H]
        k = torch.exp(k - m.unsqueeze(-1))
        log_rho = F.pad(m[:, :-1] - m[:, 1:], (0, 0, 1, 0))
        o = self.recurrence(q, k, v, refined_gate(z_g, z_r), log_rho)
        o = o * torch.rsqrt(o.square().mean(-1, keepdim=True) + NORM_EPSILON) * self.gain
        return self.output(o.reshape(B, T, D))


class Softmax(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.H, self.V = c["heads"], c["hidden"] // c["heads"]
        self.projections = nn.Linear(c["hidden"], 3 * c["hidden"])  # query, key, value
        self.output = nn.Linear(c["hidden"], c["hidden"])

    def forward(self, x, cosine, sine):
        B, T, D = x.shape
        q, k, v = self.projections(x).view(B, T, 3, self.H, self.V).unbind(2)
        q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
        o = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return self.output(o.transpose(1, 2).reshape(B, T, D))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c["hidden"]), nn.LayerNorm(c["hidden"])
        self.mixer = Regla(c) if c["mixer"] == "regla" else Softmax(c)
        self.mlp_in = nn.Linear(c["hidden"], c["mlp"])
        self.mlp_out = nn.Linear(c["mlp"], c["hidden"])
        self.dropout = nn.Dropout(c["dropout"])

    def forward(self, x, cosine, sine):
        x = x + self.dropout(self.mixer(self.norm1(x), cosine, sine))
        return x + self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.norm2(x)))))


class Decoder(nn.Module):
    """ids [B, T] -> scores [B, T, vocab]"""

    def __init__(self, c):
        super().__init__()
        D = c["hidden"]
        self.config = c
        self.embed_in = nn.Embedding(c["vocab"], D)
        self.dropout = nn.Dropout(c["dropout"])
        self.layers = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.final_norm = nn.LayerNorm(D)
        self.embed_out = nn.Linear(D, c["vocab"], bias=False)
        cosine, sine = rotation(c["sequence_length"], D // c["heads"])
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        for name, parameter in self.named_parameters():
            is_output = name.endswith(("mixer.output.weight", "mlp_out.weight"))
            deviation = 2 / (c["layers"] * math.sqrt(D)) if is_output else math.sqrt(2 / (5 * D))
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name and not name.endswith("gain"):
                nn.init.normal_(parameter, std=deviation)

    def forward(self, ids):
        T = ids.shape[1]
        x = self.dropout(self.embed_in(ids))
        for layer in self.layers:
            x = layer(x, self.cosine[:T], self.sine[:T])
        return self.embed_out(self.final_norm(x))

    def training_flops_per_token(self):
        """As docs/flops.md counts them."""
        c = self.config
        matrices = sum(p.numel() for name, p in self.named_parameters()
                       if p.dim() == 2 and not name.startswith("embed_in") and not name.endswith("gain"))
        width = c["hidden"] // c["heads"] if c["mixer"] == "regla" else (c["sequence_length"] + 1) / 2
        return 3 * (2 * matrices + c["layers"] * 4 * c["hidden"] * width)

    def load_regla(self, tensors):
        """Takes the weights of a checkpoint of regla: name -> tensor."""
        own = self.state_dict()
        parts = ("query", "key", "value", "gate", "refine")
        count = 5 if self.config["mixer"] == "regla" else 3
        for name, target in own.items():
            layer = name.replace("mlp_in", "mlp.in").replace("mlp_out", "mlp.out")
            if ".projections." in name:
                value = torch.cat([tensors[layer.replace("projections", part)]
                                   for part in parts[:count]])
            else:
                value = tensors[layer.replace("mixer.gain", "mixer.norm.weight")]
            target.copy_(value)

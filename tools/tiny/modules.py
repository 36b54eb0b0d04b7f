"""The parts of octavo-tiny in plain PyTorch, written for training speed.

Parameter names and arithmetic are those of diffusers and transformers (check_modules.py compares them), so a state
dict moves between the two as it is.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

HEAD = 64
D = 192  # width of the MMDiT, three heads
T5_WIDTH = 192
CLIP_L = dict(width=64, layers=2, ff=512, heads=1, act="quick_gelu")
CLIP_G = dict(width=128, layers=2, ff=512, heads=2, act="gelu")
T5 = dict(width=T5_WIDTH, layers=2, ff=448, heads=3)
MMDIT = dict(layers=6, table=24, base=16)
VAE = dict(channels=(32, 64, 96, 96), groups=8, latent=16)
TOKENS = 77


# ---------------------------------------------------------------------------------------------------- MMDiT


def sincos_table(dim, side, base):
    """diffusers' two-dimensional sine and cosine table of side x side places: [1, side*side, dim]."""
    place = torch.arange(side, dtype=torch.float64) / (side / base)
    omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angle = place[:, None] * omega[None]
    one = torch.cat([angle.sin(), angle.cos()], 1)  # [side, dim/2]
    x = one[None, :, :].expand(side, side, -1)
    y = one[:, None, :].expand(side, side, -1)
    return torch.cat([x, y], -1).reshape(1, side * side, dim).float()


def rms(x, weight, eps=1e-6):
    f = x.float()
    f = f * torch.rsqrt(f.square().mean(-1, keepdim=True) + eps)
    return f.to(x.dtype) * weight


def layer_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulate(x, shift, scale):
    return layer_norm(x) * (1 + scale[:, None]) + shift[:, None]


class Rms(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return rms(x, self.weight)


class Modulation(nn.Module):
    def __init__(self, dim, chunks):
        super().__init__()
        self.chunks = chunks
        self.linear = nn.Linear(dim, chunks * dim)

    def forward(self, t):
        return self.linear(t).chunk(self.chunks, 1)


class Gelu(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.proj = nn.Linear(dim, out)

    def forward(self, x):
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.net = nn.ModuleList([Gelu(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class JointAttention(nn.Module):
    """Attention over image and text tokens together, each with its own weights."""

    def __init__(self, dim, last):
        super().__init__()
        self.last = last
        self.heads = dim // HEAD
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
            setattr(self, name, nn.Linear(dim, dim))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        if not last:
            self.to_add_out = nn.Linear(dim, dim)
        self.norm_q, self.norm_k = Rms(HEAD), Rms(HEAD)
        self.norm_added_q, self.norm_added_k = Rms(HEAD), Rms(HEAD)

    def project(self, x, parts):
        """One product for several projections, split into heads: a list of [B, heads, tokens, 64]."""
        w = torch.cat([p.weight for p in parts])
        b = torch.cat([p.bias for p in parts])
        y = F.linear(x, w, b).view(*x.shape[:2], len(parts), self.heads, HEAD)
        return [y[:, :, i].transpose(1, 2) for i in range(len(parts))]

    def forward(self, x, c):
        n = x.shape[1]
        q, k, v = self.project(x, (self.to_q, self.to_k, self.to_v))
        q, k = self.norm_q(q), self.norm_k(k)
        if self.last:  # the text's own rows are not used again
            ck, cv = self.project(c, (self.add_k_proj, self.add_v_proj))
        else:
            cq, ck, cv = self.project(c, (self.add_q_proj, self.add_k_proj, self.add_v_proj))
            q = torch.cat([q, self.norm_added_q(cq)], 2)
        k = torch.cat([k, self.norm_added_k(ck)], 2)
        v = torch.cat([v, cv], 2)
        o = F.scaled_dot_product_attention(q, k, v)
        o = o.transpose(1, 2).flatten(2)
        return self.to_out[0](o[:, :n]), None if self.last else self.to_add_out(o[:, n:])


class Block(nn.Module):
    def __init__(self, dim, last):
        super().__init__()
        self.last = last
        self.norm1 = Modulation(dim, 6)
        self.norm1_context = Modulation(dim, 2 if last else 6)
        self.attn = JointAttention(dim, last)
        self.ff = FeedForward(dim)
        if not last:
            self.ff_context = FeedForward(dim)

    def forward(self, x, c, t):
        s1, k1, g1, s2, k2, g2 = self.norm1(t)
        a = modulate(x, s1, k1)
        if self.last:
            scale, shift = self.norm1_context(t)
            b = modulate(c, shift, scale)
        else:
            t1, d1, h1, t2, d2, h2 = self.norm1_context(t)
            b = modulate(c, t1, d1)
        a, b = self.attn(a, b)
        x = x + g1[:, None] * a
        x = x + g2[:, None] * self.ff(modulate(x, s2, k2))
        if not self.last:
            c = c + h1[:, None] * b
            c = c + h2[:, None] * self.ff_context(modulate(c, t2, d2))
        return x, c


class TwoLinear(nn.Module):
    def __init__(self, dim_in, dim):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(dim_in, dim), nn.Linear(dim, dim)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Mmdit(nn.Module):
    """SD3Transformer2DModel."""

    def __init__(self, layers=MMDIT["layers"], dim=D, table=MMDIT["table"], base=MMDIT["base"]):
        super().__init__()
        self.table = table
        self.pos_embed = nn.Module()
        self.pos_embed.proj = nn.Conv2d(16, dim, 2, 2)
        self.pos_embed.register_buffer("pos_embed", sincos_table(dim, table, base))
        self.time_text_embed = nn.Module()
        self.time_text_embed.timestep_embedder = TwoLinear(256, dim)
        self.time_text_embed.text_embedder = TwoLinear(CLIP_L["width"] + CLIP_G["width"], dim)
        self.context_embedder = nn.Linear(T5_WIDTH, dim)
        self.transformer_blocks = nn.ModuleList(Block(dim, i == layers - 1) for i in range(layers))
        self.norm_out = Modulation(dim, 2)
        self.proj_out = nn.Linear(dim, 64)

    def forward(self, x, context, pooled, t):
        """x [B, 16, h, w], context [B, T, 192], pooled [B, 192], t = 1000 sigma [B] in float32: the velocity."""
        b, _, h, w = x.shape
        dtype = self.proj_out.weight.dtype
        rows, cols = h // 2, w // 2
        # The 2 x 2 convolution with stride 2, as a product.
        p = x.to(dtype).reshape(b, 16, rows, 2, cols, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, rows * cols, 64)
        y = F.linear(p, self.pos_embed.proj.weight.flatten(1), self.pos_embed.proj.bias)
        top, left = (self.table - rows) // 2, (self.table - cols) // 2
        place = self.pos_embed.pos_embed.view(self.table, self.table, -1)
        y = y + place[top : top + rows, left : left + cols].reshape(1, rows * cols, -1).to(dtype)
        freq = torch.exp(torch.arange(128, device=x.device, dtype=torch.float32) * (-math.log(10000.0) / 128))
        angle = t[:, None] * freq[None]
        wave = torch.cat([angle.cos(), angle.sin()], 1).to(dtype)
        temb = self.time_text_embed.timestep_embedder(wave) + self.time_text_embed.text_embedder(pooled)
        temb = F.silu(temb)
        c = self.context_embedder(context)
        for block in self.transformer_blocks:
            y, c = block(y, c, temb)
        scale, shift = self.norm_out(temb)
        y = self.proj_out(modulate(y, shift, scale))
        y = y.view(b, rows, cols, 2, 2, 16).permute(0, 5, 1, 3, 2, 4)
        return y.reshape(b, 16, h, w)


# ---------------------------------------------------------------------------------------------- text encoders


def embed(ids, weight, onehot):
    """Rows of a table. As a product where the table is trained on a GPU: its gradient is then a product too, and not
    hundreds of thousands of additions to the one row of the padding."""
    if onehot:
        return F.one_hot(ids, weight.shape[0]).to(weight.dtype) @ weight
    return F.embedding(ids, weight)


class ClipAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x):
        b, n, d = x.shape
        w = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        bias = torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])
        q, k, v = F.linear(x, w, bias).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(o.transpose(1, 2).reshape(b, n, d))


class ClipMlp(nn.Module):
    def __init__(self, width, ff, act):
        super().__init__()
        self.act = act
        self.fc1, self.fc2 = nn.Linear(width, ff), nn.Linear(ff, width)

    def forward(self, x):
        y = self.fc1(x)
        y = y * torch.sigmoid(1.702 * y) if self.act == "quick_gelu" else F.gelu(y)
        return self.fc2(y)


class ClipLayer(nn.Module):
    def __init__(self, width, ff, heads, act):
        super().__init__()
        self.self_attn = ClipAttention(width, heads)
        self.layer_norm1 = nn.LayerNorm(width)
        self.mlp = ClipMlp(width, ff, act)
        self.layer_norm2 = nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Clip(nn.Module):
    """CLIPTextModelWithProjection; gives the second-to-last layer's states and the projected pooled vector."""

    def __init__(self, vocab, width, layers, ff, heads, act):
        super().__init__()
        m = self.text_model = nn.Module()
        m.embeddings = nn.Module()
        m.embeddings.token_embedding = nn.Embedding(vocab, width)
        m.embeddings.position_embedding = nn.Embedding(TOKENS, width)
        m.encoder = nn.Module()
        m.encoder.layers = nn.ModuleList(ClipLayer(width, ff, heads, act) for _ in range(layers))
        m.final_layer_norm = nn.LayerNorm(width)
        self.text_projection = nn.Linear(width, width, bias=False)

    def forward(self, ids, onehot=False):
        m = self.text_model
        x = embed(ids, m.embeddings.token_embedding.weight, onehot) + m.embeddings.position_embedding.weight
        for layer in m.encoder.layers:
            states = x
            x = layer(x)
        end = ids.argmax(-1)  # the first of the largest id
        row = x.gather(1, end[:, None, None].expand(-1, 1, x.shape[-1]))[:, 0]
        return states, self.text_projection(m.final_layer_norm(row))


class T5Attention(nn.Module):
    def __init__(self, width, heads, first):
        super().__init__()
        self.heads = heads
        for name in ("q", "k", "v", "o"):
            setattr(self, name, nn.Linear(width, width, bias=False))
        if first:
            self.relative_attention_bias = nn.Embedding(32, heads)

    def forward(self, x, bias):
        b, n, d = x.shape
        w = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        q, k, v = F.linear(x, w).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3)).float() + bias.float()
        return self.o((scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(b, n, d))


class T5Block(nn.Module):
    def __init__(self, width, ff, heads, first):
        super().__init__()
        a, f = nn.Module(), nn.Module()
        a.SelfAttention = T5Attention(width, heads, first)
        a.layer_norm = Rms(width)
        f.DenseReluDense = nn.Module()
        f.DenseReluDense.wi_0 = nn.Linear(width, ff, bias=False)
        f.DenseReluDense.wi_1 = nn.Linear(width, ff, bias=False)
        f.DenseReluDense.wo = nn.Linear(ff, width, bias=False)
        f.layer_norm = Rms(width)
        self.layer = nn.ModuleList([a, f])

    def forward(self, x, bias):
        a, f = self.layer
        x = x + a.SelfAttention(a.layer_norm(x), bias)
        y = f.layer_norm(x)
        d = f.DenseReluDense
        return x + d.wo(F.gelu(d.wi_0(y), approximate="tanh") * d.wi_1(y))


def t5_buckets(n, device):
    """The relative-position bucket of each (query, key) pair: [n, n]."""
    place = torch.arange(n, device=device)
    rel = place[None, :] - place[:, None]
    away = rel.abs()
    far = 8 + (torch.log(away.float().clamp(min=1) / 8) / math.log(128 / 8) * 8).long()
    return (rel > 0).long() * 16 + torch.where(away < 8, away, far.clamp(max=15))


class T5Encoder(nn.Module):
    """T5EncoderModel."""

    def __init__(self, vocab, width, layers, ff, heads):
        super().__init__()
        self.shared = nn.Embedding(vocab, width)
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(T5Block(width, ff, heads, i == 0) for i in range(layers))
        self.encoder.final_layer_norm = Rms(width)

    def forward(self, ids, onehot=False):
        n = ids.shape[1]
        x = embed(ids, self.shared.weight, onehot)
        table = self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        buckets = t5_buckets(n, ids.device)
        bias = embed(buckets, table, onehot).permute(2, 0, 1)[None]
        for block in self.encoder.block:
            x = block(x, bias)
        return self.encoder.final_layer_norm(x)


class Generator(nn.Module):
    """The text encoders and the MMDiT together: ids and a noisy latent in, velocity out."""

    def __init__(self, clip_vocab, t5_vocab, onehot=False):
        super().__init__()
        self.onehot = onehot
        self.text_encoder = Clip(clip_vocab, **CLIP_L)
        self.text_encoder_2 = Clip(clip_vocab, **CLIP_G)
        self.text_encoder_3 = T5Encoder(t5_vocab, **T5)
        self.transformer = Mmdit()

    def encode(self, ids_l, ids_g, ids_t5):
        l, pooled_l = self.text_encoder(ids_l, self.onehot)
        g, pooled_g = self.text_encoder_2(ids_g, self.onehot)
        c = torch.cat([l, g], -1)
        c = F.pad(c, (0, T5_WIDTH - c.shape[-1]))
        return torch.cat([c, self.text_encoder_3(ids_t5, self.onehot)], 1), torch.cat([pooled_l, pooled_g], -1)

    def forward(self, x, t, ids_l, ids_g, ids_t5):
        context, pooled = self.encode(ids_l, ids_g, ids_t5)
        return self.transformer(x, context, pooled, t)


def initialise(model, seed=0):
    """Fresh weights: projections by their fan-in, modulations and the last projection zero."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            p.data.zero_()
        elif p.dim() == 1:
            p.data.fill_(1.0)
        elif "norm1" in name or "norm_out" in name or "proj_out" in name or "relative_attention_bias" in name:
            p.data.zero_()
        elif "position_embedding" in name:
            p.data.normal_(0, 0.05, generator=g)
        elif "token_embedding" in name or "shared" in name:
            p.data.normal_(0, 0.3, generator=g)
        elif name.endswith("SelfAttention.q.weight"):
            p.data.normal_(0, 0.7 / p.shape[1] ** 0.5 / 8, generator=g)
        else:
            fan = p[0].numel()
            p.data.normal_(0, 0.7 / fan**0.5, generator=g)
    return model


# -------------------------------------------------------------------------------------------------------- VAE


class ResBlock(nn.Module):
    def __init__(self, cin, cout, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, eps=1e-6)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, cout, eps=1e-6)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.conv_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x) + h


class VaeAttention(nn.Module):
    def __init__(self, dim, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, dim, eps=1e-6)
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, nn.Linear(dim, dim))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.group_norm(x).permute(0, 2, 3, 1).reshape(b, h * w, c)
        q, k, v = (f(y)[:, None] for f in (self.to_q, self.to_k, self.to_v))
        y = self.to_out[0](F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + y.view(b, h, w, c).permute(0, 3, 1, 2)


class Middle(nn.Module):
    def __init__(self, dim, groups):
        super().__init__()
        self.attentions = nn.ModuleList([VaeAttention(dim, groups)])
        self.resnets = nn.ModuleList([ResBlock(dim, dim, groups), ResBlock(dim, dim, groups)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Down(nn.Module):
    def __init__(self, cin, cout, groups, down):
        super().__init__()
        self.resnets = nn.ModuleList([ResBlock(cin, cout, groups)])
        if down:
            self.downsamplers = nn.ModuleList([nn.Module()])
            self.downsamplers[0].conv = nn.Conv2d(cout, cout, 3, 2)

    def forward(self, x):
        x = self.resnets[0](x)
        return self.downsamplers[0].conv(F.pad(x, (0, 1, 0, 1))) if hasattr(self, "downsamplers") else x


class Up(nn.Module):
    def __init__(self, cin, cout, groups, up):
        super().__init__()
        self.resnets = nn.ModuleList([ResBlock(cin, cout, groups), ResBlock(cout, cout, groups)])
        if up:
            self.upsamplers = nn.ModuleList([nn.Module()])
            self.upsamplers[0].conv = nn.Conv2d(cout, cout, 3, padding=1)

    def forward(self, x):
        x = self.resnets[1](self.resnets[0](x))
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0].conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return x


class Encoder(nn.Module):
    def __init__(self, ch, groups, latent):
        super().__init__()
        self.conv_in = nn.Conv2d(3, ch[0], 3, padding=1)
        ins = (ch[0],) + tuple(ch[:-1])
        self.down_blocks = nn.ModuleList(Down(a, b, groups, i < len(ch) - 1) for i, (a, b) in enumerate(zip(ins, ch)))
        self.mid_block = Middle(ch[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, ch[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(ch[-1], 2 * latent, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, ch, groups, latent):
        super().__init__()
        rev = tuple(reversed(ch))
        self.conv_in = nn.Conv2d(latent, rev[0], 3, padding=1)
        self.mid_block = Middle(rev[0], groups)
        ins = (rev[0],) + rev[:-1]
        self.up_blocks = nn.ModuleList(Up(a, b, groups, i < len(ch) - 1) for i, (a, b) in enumerate(zip(ins, rev)))
        self.conv_norm_out = nn.GroupNorm(groups, ch[0], eps=1e-6)
        self.conv_out = nn.Conv2d(ch[0], 3, 3, padding=1)

    def forward(self, z):
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Vae(nn.Module):
    """AutoencoderKL; pictures and reconstructions in [-1, 1]."""

    def __init__(self, channels=VAE["channels"], groups=VAE["groups"], latent=VAE["latent"]):
        super().__init__()
        self.encoder = Encoder(channels, groups, latent)
        self.decoder = Decoder(channels, groups, latent)

    def encode(self, x):
        """Mean and log variance of the posterior."""
        mean, logvar = self.encoder(x).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def forward(self, x):
        mean, logvar = self.encode(x)
        return mean, logvar, self.decoder(mean)

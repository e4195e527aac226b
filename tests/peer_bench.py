"""The parts of tools/bench.c in PyTorch, timed on request: a name per line on standard input, seconds per line on
standard output ("nan" for what is not known here). Random weights of the same shapes; the same arithmetic types."""
import math
import os
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

torch.set_grad_enabled(False)
torch.set_num_threads(int(os.environ.get("SCA_BENCH_THREADS", os.cpu_count() or 1)))


class EncoderBlock(nn.Module):
    """ViT block of SAM with decomposed relative positions."""

    def __init__(self, width, heads, window, grid):
        super().__init__()
        self.heads, self.window, self.side = heads, window, window or grid
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        size = width // heads
        self.rel = nn.ParameterList([nn.Parameter(torch.randn(2 * self.side - 1, size) * 0.02) for _ in range(2)])

    def attention(self, x):
        b, h, w, width = x.shape
        qkv = self.qkv(x).reshape(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4).reshape(3, b * self.heads, h * w, -1)
        q, k, v = qkv.unbind(0)
        index = torch.arange(h)[:, None] - torch.arange(h)[None, :] + h - 1
        rows, columns = self.rel[0][index], self.rel[1][index]
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        r = q.reshape(b * self.heads, h, w, -1)
        rel_h = torch.einsum("bhwc,hkc->bhwk", r, rows)
        rel_w = torch.einsum("bhwc,wkc->bhwk", r, columns)
        scores = (scores.view(-1, h, w, h, w) + rel_h[..., None] + rel_w[..., None, :]).view(-1, h * w, h * w)
        y = scores.softmax(-1) @ v
        return self.proj(y.view(b, self.heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(b, h, w, width))

    def forward(self, x):
        _, h, w, width = x.shape
        y = self.norm1(x)
        if self.window:
            s = self.window
            n = math.ceil(h / s)
            y = F.pad(y, (0, 0, 0, n * s - w, 0, n * s - h))
            y = y.view(1, n, s, n, s, width).permute(0, 1, 3, 2, 4, 5).reshape(-1, s, s, width)
            y = self.attention(y)
            y = y.view(1, n, n, s, s, width).permute(0, 1, 3, 2, 4, 5).reshape(1, n * s, n * s, width)[:, :h, :w]
        else:
            y = self.attention(y)
        x = x + y
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    def __init__(self, width=768, layers=12, heads=12, globals_at=(2, 5, 8, 11)):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.pos = nn.Parameter(torch.zeros(1, 64, 64, width))
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, 0 if i in globals_at else 14, 64) for i in range(layers))
        self.neck1, self.neck2 = nn.Conv2d(width, 256, 1, bias=False), nn.Conv2d(256, 256, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(256), nn.LayerNorm(256)

    def forward(self, pixels):
        x = self.patch(pixels).permute(0, 2, 3, 1) + self.pos
        for block in self.blocks:
            x = block(x)
        x = self.norm1(self.neck1(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return self.norm2(self.neck2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Attention(nn.Module):
    def __init__(self, width, inner, heads=8):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, q, k, v):
        def split(x):
            return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

        y = F.scaled_dot_product_attention(split(self.q(q)), split(self.k(k)), split(self.v(v)))
        return self.out(y.transpose(1, 2).flatten(2))


class TwoWay(nn.Module):
    def __init__(self, layers, width=256, hidden=2048):
        super().__init__()
        self.blocks = nn.ModuleList()
        for _ in range(layers):
            block = nn.ModuleDict({
                "own": Attention(width, width), "there": Attention(width, width // 2), "back": Attention(width, width // 2),
                "up": nn.Linear(width, hidden), "down": nn.Linear(hidden, width)})
            for i in range(4):
                block[f"norm{i}"] = nn.LayerNorm(width)
            self.blocks.append(block)
        self.last, self.norm = Attention(width, width // 2), nn.LayerNorm(width)

    def forward(self, tokens, image, pe):
        q, x = tokens, image
        for i, b in enumerate(self.blocks):
            if i == 0:
                q = b["own"](q, q, q)
            else:
                q = q + b["own"](q + tokens, q + tokens, q)
            q = b["norm0"](q)
            q = b["norm1"](q + b["there"](q + tokens, x + pe, x))
            q = b["norm2"](q + b["down"](F.relu(b["up"](q))))
            x = b["norm3"](x + b["back"](x + pe, q + tokens, q))
        return self.norm(q + self.last(q + tokens, x + pe, x)), x


def encoder():
    model, pixels = Encoder(), torch.randn(1, 3, 1024, 1024)
    return lambda: model(pixels)


def mixer(regions):
    decoder, mix = TwoWay(2), TwoWay(12)
    tokens, caption = torch.randn(regions, 7, 256), torch.randn(regions, 8, 256)
    image, pe = torch.randn(1, 4096, 256).expand(regions, -1, -1), torch.randn(1, 4096, 256)

    def run():
        q, x = decoder(tokens, image, pe)
        mix(torch.cat([caption, q], 1), x, pe)

    return run


def language_model(name, dtype):
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
    torch.set_default_dtype({"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
    kept, nn.init.normal_ = nn.init.normal_, lambda t, *a, **k: t.fill_(0.01)  # random numbers take minutes
    try:
        if name == "gpt2-large":
            model = GPT2LMHeadModel(GPT2Config(n_embd=1280, n_layer=36, n_head=20))
        else:
            model = LlamaForCausalLM(LlamaConfig(hidden_size=3200, intermediate_size=8640, num_hidden_layers=26,
                                                 num_attention_heads=32, vocab_size=32000))
    finally:
        nn.init.normal_ = kept
        torch.set_default_dtype(torch.float32)
    return model.eval()


def step(name, sequences, dtype):
    """One decoding step of the Hugging Face model, with 24 positions in its cache."""
    model = language_model(name, dtype)
    layers, heads, size = (36, 20, 64) if name == "gpt2-large" else (26, 32, 100)
    past = tuple(tuple(torch.zeros(sequences, heads, 24, size, dtype=model.dtype) for _ in range(2)) for _ in range(layers))
    one = torch.full((sequences, 1), 7)

    def run():
        model(one, past_key_values=past, use_cache=True)

    return run


def photo(regions, tokens=19):
    """A whole image: encoder, decoder and mixer, then greedy captions from a prefix of 6 task and 8 caption tokens.
    Masks in full size are left out."""
    see, mix, model = encoder(), mixer(regions), language_model("gpt2-large", "f32")
    prefix = torch.randn(regions, 14, 1280)

    def run():
        see()
        mix()
        out = model(inputs_embeds=prefix, use_cache=True)
        for _ in range(tokens - 1):
            best = out.logits[:, -1:].argmax(-1)
            out = model(best, past_key_values=out.past_key_values, use_cache=True)

    return run


def make(name):
    part, *words = name.split()
    if part == "encoder":
        return encoder()
    if part == "mixer":
        return mixer(int(words[0]))
    if part == "photo":
        return photo(int(words[0]))
    if part in ("gpt2-large", "open_llama_3b"):
        return step(part, int(words[0]), words[1])
    return None


def answer(run):
    """Prints the seconds of one run; nan when there is nothing to run."""
    if run is None:
        print("nan", flush=True)
        return
    start = time.perf_counter()
    run()
    print(f"{time.perf_counter() - start:.6f}", flush=True)


def main():
    runs = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in runs:
            while len(runs) >= 2 or "open_llama_3b" in name and runs:
                runs.pop(next(iter(runs)))  # an old model goes before the next one comes
            try:
                runs[name] = make(name)
            except ImportError as error:
                runs[name] = None
                print(f"peer: {name}: {error}", file=sys.stderr)
        answer(runs[name])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Times of PyTorch beside ours, for tools/gpu_check.sh.

  gpu_peers.py measure --device cuda|cpu --seconds N --out peers.json [--quick]
      Ceilings (a large product through cuBLASLt, a plain copy) and peers of the sizes that `test_ops perf` times, all on
      random bf16 numbers: eager (torch's products are cuBLASLt's), compiled, and attention through flash and cuDNN.
  gpu_peers.py table --ours perf1.csv,perf2.csv --peers peers1.json,peers2.json --json gpu.json
      One table of both; of several rounds the smallest median. Exit status 77: no torch.
"""
import argparse
import csv
import json
import statistics
import sys
import time


def load_torch():
    try:
        import torch
        return torch
    except ImportError:
        print("peers: this Python has no torch")
        sys.exit(77)


# ---- measuring ------------------------------------------------------------------------------------------------------


def timed(torch, device, call, limit):
    """Median of at most 30 calls, in milliseconds; the first three warm up."""
    times, begin = [], time.monotonic()
    for i in range(33):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            end.record()
            end.synchronize()
            took = start.elapsed_time(end)
        else:
            start = time.perf_counter()
            call()
            took = 1e3 * (time.perf_counter() - start)
        if i >= 3:
            times.append(took)
        if len(times) > 0 and time.monotonic() - begin > limit:
            break
    return statistics.median(times)


def ceilings(torch, device, quick, limit):
    n, count = (256, 1 << 20) if quick else (8192, 1 << 29)
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    product = timed(torch, device, lambda: a @ b, limit)
    x = torch.randn(count, device=device).bfloat16()
    y = torch.empty_like(x)
    copy = timed(torch, device, lambda: y.copy_(x), limit)
    return {"TFLOP/s": 2 * n ** 3 / product * 1e-9, "GB/s": 4 * count / copy * 1e-6}


def linear(torch, make, rows, out, inner, act=None, residual=False):
    x, w, b, r = make(rows, inner), make(out, inner), make(out), make(rows, out)

    def call():
        y = torch.nn.functional.linear(x, w, b)
        if act:
            y = act(y)
        return r + y if residual else y

    return call


def attention(torch, make, batch, heads, queries, keys, size, backend=None, bias=False, causal=False):
    q, k, v = make(batch, heads, queries, size), make(batch, heads, keys, size), make(batch, heads, keys, size)
    mask = make(batch, heads, queries, keys) if bias else None
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def call():
        if backend is None:
            return sdpa(q, k, v, attn_mask=mask, is_causal=causal)
        with torch.nn.attention.sdpa_kernel(backend):
            return sdpa(q, k, v, attn_mask=mask, is_causal=causal)

    return call


def cases(torch, make, quick):
    """(op, case as test_ops names it, [(peer, call or function that makes one)])"""
    f = torch.nn.functional
    compiled = (lambda c: torch.compile(c, backend="eager")) if quick else torch.compile
    shapes = [("ViT-B qkv", 4096, 2304, 768, None, False), ("ViT-B proj", 4096, 768, 768, None, True),
              ("ViT-B fc1", 4096, 3072, 768, f.gelu, False), ("ViT-B fc2", 4096, 768, 3072, None, True),
              ("ViT-H fc1", 4096, 5120, 1280, f.gelu, False), ("ViT-H fc2", 4096, 1280, 5120, None, True),
              ("GPT-2 large qkv, 1 token", 1, 3840, 1280, None, False),
              ("GPT-2 large qkv, 16 tokens", 16, 3840, 1280, None, False),
              ("GPT-2 large head, 16 tokens", 16, 50257, 1280, None, False)]
    if quick:
        shapes = [("a small product", 64, 64, 64, f.gelu, True)]
    for name, rows, out, inner, act, residual in shapes:
        call = linear(torch, make, rows, out, inner, act, residual)
        yield "linear_fwd", name, [("cuBLASLt, eager", call), ("compiled", compiled(call))]
    x, r, g, b = make(4096, 768), make(4096, 768), make(768), make(768)
    call = lambda: f.layer_norm(x + r, (768,), g, b, 1e-6)
    yield "layernorm_fwd", "ViT-B norm", [("eager", call), ("compiled", compiled(call))]
    if quick:
        return
    kinds = torch.nn.attention.SDPBackend
    for name, batch, tokens in (("ViT-B window", 25, 196), ("ViT-B global", 1, 4096)):
        size = (batch, 12, tokens, tokens, 64)
        yield "relpos_attention_fwd", name, [
            ("bias in memory", attention(torch, make, *size, bias=True)),
            ("flash, no bias", attention(torch, make, *size, backend=kinds.FLASH_ATTENTION)),
            ("cuDNN, no bias", attention(torch, make, *size, backend=kinds.CUDNN_ATTENTION))]
    yield "attention_fwd", "GPT-2 large step", [("eager", attention(torch, make, 16, 20, 1, 27, 64))]
    image, w = make(1, 256, 64, 64).to(memory_format=torch.channels_last), make(256, 256, 3, 3)
    yield "conv_fwd", "neck", [("cuDNN, eager", lambda: f.conv2d(image, w, padding=1))]


def measure(o):
    torch = load_torch()
    begin, device = time.monotonic(), o.device
    make = lambda *size: torch.randn(*size, device=device).bfloat16()
    result = {"torch": torch.__version__, "ceilings": ceilings(torch, device, o.quick, 2), "rows": []}
    for op, name, peers in cases(torch, make, o.quick):
        for peer, call in peers:
            row = {"op": op, "case": name, "peer": peer}
            if time.monotonic() - begin > o.seconds:
                row["why"] = "no time was left"
            else:
                try:
                    with torch.no_grad():
                        row["ms"] = timed(torch, device, call, 0.1 if o.quick else 0.5)
                except Exception as e:  # a backend that is not there is a row without a number
                    row["why"] = str(e).splitlines()[0][:120]
            result["rows"].append(row)
    with open(o.out, "w") as f:
        json.dump(result, f, indent=1)
    got = sum("ms" in r for r in result["rows"])
    print(f"{got} of {len(result['rows'])} peers timed, torch {torch.__version__}")


# ---- the table ------------------------------------------------------------------------------------------------------


def table(o):
    ours, peers, ceiling, why = {}, {}, {}, {}
    for path in o.ours.split(","):
        with open(path) as f:
            for r in csv.DictReader(f):
                if not r["GFLOP/s"] or r["weights"].startswith("f32"):
                    continue
                key = (r["device"], r["op"], r["case"])
                if key not in ours or float(r["ms"]) < ours[key][0]:
                    ours[key] = float(r["ms"]), float(r["GB/s"]), float(r["GFLOP/s"]) * 1e-3
    for path in o.peers.split(",") if o.peers else []:
        with open(path) as f:
            j = json.load(f)
        for k, v in j["ceilings"].items():
            ceiling[k] = max(v, ceiling.get(k, 0))
        for r in j["rows"]:
            key = (r["op"], r["case"], r["peer"])
            if "ms" in r:
                peers[key] = min(r["ms"], peers.get(key, r["ms"]))
            else:
                why[key] = r["why"]
    print("ceilings: " + ", ".join(f"{v:.1f} {k}" for k, v in ceiling.items()))
    print(f"{'device':<10} {'op':<22} {'case':<30} {'ms':>9} {'TFLOP/s':>8} {'share':>6} {'GB/s':>8} {'share':>6}  peers, ms (theirs/ours)")
    rows = []
    share = lambda x, k: f"{100 * x / ceiling[k]:5.1f}%" if ceiling.get(k) else "     -"
    for (device, op, name), (ms, gbs, tflops) in ours.items():
        theirs = {p: t for (a, b, p), t in peers.items() if (a, b) == (op, name)}
        text = "; ".join(f"{p} {t:.4f} ({t / ms:.2f})" for p, t in theirs.items())
        print(f"{device:<10} {op:<22} {name:<30} {ms:9.4f} {tflops:8.2f} {share(tflops, 'TFLOP/s')} {gbs:8.1f} {share(gbs, 'GB/s')}  {text}")
        rows.append({"device": device, "op": op, "case": name, "ms": ms, "GB/s": gbs, "TFLOP/s": tflops, "peers": theirs})
    for (op, name, peer), reason in why.items():
        print(f"not timed: {op}, {name}, {peer}: {reason}")
    with open(o.json, "w") as f:
        json.dump({"ceilings": ceiling, "rows": rows, "not timed": [[*k, v] for k, v in why.items()]}, f, indent=1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(dest="command", required=True)
    m = commands.add_parser("measure")
    m.add_argument("--device", default="cuda")
    m.add_argument("--seconds", type=float, default=60)
    m.add_argument("--out", required=True)
    m.add_argument("--quick", action="store_true")
    t = commands.add_parser("table")
    t.add_argument("--ours", required=True)
    t.add_argument("--peers", default="")
    t.add_argument("--json", required=True)
    o = p.parse_args()
    measure(o) if o.command == "measure" else table(o)


if __name__ == "__main__":
    main()

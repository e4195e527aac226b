"""The rows of tools/bench_train.c in PyTorch, timed on request: a name per line on standard input, seconds per line on
standard output; "memory" answers the peak bytes since the last row began. Random weights of the same shapes, f32.
Without PyTorch (Pillow-SIMD often has an environment of its own) the photos alone are timed."""
import os
import sys
import time

try:
    import torch
    from torch.nn import functional as F

    from peer_bench import TwoWay
except ImportError as missing:
    torch, why_not = None, missing

REGIONS, LENGTHS = 16, [6, 7, 7, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 11, 11, 12]


def answer(run):
    """Prints the seconds of one run; nan when there is nothing to run."""
    start = time.perf_counter()
    if run is not None:
        run()
    print("nan" if run is None else f"{time.perf_counter() - start:.6f}", flush=True)


def frozen(module):
    return module.requires_grad_(False)


def step():
    """As the official collator and trainer do it: captions padded to the longest, the language model frozen but with
    dropout, loss with label smoothing over all logits, AdamW."""
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.set_grad_enabled(True)
    kept, torch.nn.init.normal_ = torch.nn.init.normal_, lambda t, *a, **k: t
    try:
        lm = frozen(GPT2LMHeadModel(GPT2Config(n_embd=1280, n_layer=36, n_head=20)))
    finally:
        torch.nn.init.normal_ = kept
    for p in lm.parameters():
        p.data.uniform_(-0.03, 0.03)
    lm.train()
    decoder, mixer, project = frozen(TwoWay(2)), TwoWay(12), torch.nn.Linear(256, 1280)
    caption = torch.nn.Parameter(torch.randn(8, 256))
    task = torch.nn.Parameter(torch.randn(12, 1280))
    trained = [*mixer.parameters(), *project.parameters(), caption, task]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-4)
    image, pe, own = torch.randn(1, 4096, 256), torch.randn(1, 4096, 256), torch.randn(REGIONS, 7, 256)
    longest = max(LENGTHS)
    ids = torch.randint(0, 50257, (REGIONS, longest))
    mask = torch.arange(longest)[None] < torch.tensor(LENGTHS)[:, None]
    labels = torch.cat([torch.full((REGIONS, 14), -100), ids.masked_fill(~mask, -100)], 1)
    seen = torch.cat([torch.ones(REGIONS, 14, dtype=torch.long), mask.long()], 1)

    def run():
        with torch.no_grad():
            q, x = decoder(own, image.repeat_interleave(REGIONS, 0), pe.repeat_interleave(REGIONS, 0))
        tokens = torch.cat([caption.expand(REGIONS, -1, -1), q], 1)
        mixed = mixer(tokens, x, pe.repeat_interleave(REGIONS, 0))[0][:, :8]
        prefix = torch.cat([task[6:].expand(REGIONS, -1, -1), project(mixed)], 1)
        words = lm.transformer.wte(ids)
        logits = lm(inputs_embeds=torch.cat([prefix, words], 1), attention_mask=seen).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=0.1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()

    return run


def mixer():
    torch.set_grad_enabled(True)
    model = TwoWay(12)
    tokens = torch.randn(REGIONS, 15, 256, requires_grad=True)
    image, pe = torch.randn(REGIONS, 4096, 256), torch.randn(1, 4096, 256)

    def run():
        model.zero_grad(set_to_none=True)
        tokens.grad = None
        model(tokens, image, pe)[0].sum().mul(0.01).backward()

    return run


def photos(folder):
    """Pillow's decode and its bilinear resize with antialiasing, one thread: what the official loader calls."""
    from PIL import Image
    names = sorted(n for n in os.listdir(folder) if n.endswith(".jpg"))[:64]

    def run():
        for name in names:
            photo = Image.open(os.path.join(folder, name)).convert("RGB")
            longest = max(photo.size)
            photo.resize([(side * 1024 + longest // 2) // longest for side in photo.size], Image.BILINEAR)

    return run


def torchvision_photos(folder):
    """torchvision's decode and resize with antialiasing of 8-bit pixels, one thread."""
    from torchvision.io import ImageReadMode, read_image
    from torchvision.transforms.functional import InterpolationMode, resize
    names = sorted(n for n in os.listdir(folder) if n.endswith(".jpg"))[:64]

    def run():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for name in names:
            photo = read_image(os.path.join(folder, name), ImageReadMode.RGB)
            longest = max(photo.shape[1:])
            size = [(side * 1024 + longest // 2) // longest for side in photo.shape[1:]]
            resize(photo, size, InterpolationMode.BILINEAR, antialias=True)
        torch.set_num_threads(threads)

    return run


def restart_peak():
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5\n")


def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


def make(name):
    folder = sys.argv[1] if len(sys.argv) > 1 else None
    if torch is None and name != "photos":
        raise why_not
    if name in ("photos", "torchvision"):
        return {"photos": photos, "torchvision": torchvision_photos}[name](folder) if folder else None
    return {"step": step, "mixer": mixer}.get(name, lambda: None)()


def main():
    current, run = None, None
    for line in sys.stdin:
        name = line.strip()
        if name == "memory":
            print(peak(), flush=True)
            continue
        if name != current:
            current, run = name, None  # the old model goes before the next one comes
            try:
                run = make(name)
                restart_peak()
            except ImportError as error:
                print(f"peer: {name}: {error}", file=sys.stderr)
        answer(run)


if __name__ == "__main__":
    main()

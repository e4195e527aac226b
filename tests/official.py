"""The official implementation on a directory that `sca export` wrote, against `sca` itself on the same directory.

  official.py SCA MODEL WORK TYPE    SCA: the program; MODEL: a model directory; WORK: a folder for what is made here;
                                     TYPE: f32, f16 or bf16

Exit status 0: equal within the tolerances; 1: not; 77: PyTorch or transformers is absent.

SCA_OFFICIAL names a checkout of the official repository (xk-huang/segment-caption-anything); then its classes load the
directory and caption the regions. Without it, SAM and the language model are loaded into the classes of transformers
under the exact names that the official classes give them, and the masks are compared."""
import importlib
import json
import os
import struct
import subprocess
import sys
import types
import zlib

try:
    import numpy as np
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as error:
    print(f"{error}; tests/requirements.txt says what to install, SCA_PYTHON where it is")
    sys.exit(77)

MASKS_SHARE, SCORES_APART, LOGPROB_APART = 0.999, 1e-4, 1e-3
failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("FAILED", what)


# ---- a picture of the model's own size, so that no resize stands between the two programs ---------------------------


def picture(side):
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(7 * x + 3 * y), np.cos(9 * x * y + 1), np.sin(5 * y - 11 * x * x)]
    image = np.stack([127.5 + 100 * w for w in waves], -1)
    image[side // 4:side // 2, side // 3:side * 3 // 4] = (230, 40, 20)
    image[side * 5 // 8:side * 7 // 8, side // 8:side // 2] = (10, 60, 200)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_png(path, image):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pixels_of(image, directory):
    with open(os.path.join(directory, "preprocessor_config.json")) as file:
        settings = json.load(file)
    mean, std = (np.array(settings[k], np.float32) for k in ("image_mean", "image_std"))
    scaled = image.astype(np.float32) * np.float32(settings["rescale_factor"])
    return torch.from_numpy(((scaled - mean) / std).transpose(2, 0, 1).copy())[None]


def boxes_of(side):
    return [[side / 3, side / 4, side * 3 / 4, side / 2], [side / 8, side * 5 / 8, side / 2, side * 7 / 8],
            [0.5, 0.25, side - 1.5, side - 2.75]]


# ---- what sca says --------------------------------------------------------------------------------------------------


def mask_of(rle):
    """COCO's compressed run lengths: column by column, zeros first."""
    runs, at, text = [], 0, rle["counts"].encode()
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            c = text[at] - 48
            value |= (c & 31) << shift
            more = bool(c & 32)
            at += 1
            shift += 5
            if not more and c & 16:
                value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    height, width = rle["size"]
    flat = np.repeat(np.arange(len(runs)) % 2, runs)
    return flat.reshape(width, height).T.astype(bool)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(" ".join(command), "gave", done.returncode, done.stderr)
        sys.exit(1)
    return done.stdout


def describe(sca, directory, photo, boxes, beams):
    command = [sca, "caption", photo, "--model", directory, "--format", "json", "--beams", str(beams)]
    for box in boxes:
        command += ["--box", ",".join(repr(x) for x in box)]
    return json.loads(run(command))


# ---- the official classes -------------------------------------------------------------------------------------------


def official_classes(root, name):
    """The class of that name and its configuration, without what only other variants, training and data need."""

    def stand_in(module, path, **names):
        sys.modules[module] = types.ModuleType(module)
        sys.modules[module].__path__ = path
        sys.modules[module].__dict__.update(names)

    sys.path.insert(0, root)
    folder = os.path.join(root, "src", "models", "sca")
    importlib.import_module("src.models")
    stand_in("src.models.sca", [folder])
    stand_in("src.data", [])
    stand_in("src.data.transforms", [], UNUSED_KEYS_IN_GENERATE=[])
    for file in sorted(os.listdir(folder)):
        if file.startswith("modeling_") and file.endswith(".py"):
            with open(os.path.join(folder, file)) as text:
                if f"class {name}(" in text.read():
                    return (getattr(importlib.import_module("src.models.sca." + file[:-3]), name),
                            importlib.import_module("src.models.sca.configuration_sca").ScaConfig)
    raise SystemExit(f"{root}: no class {name}; SCA_OFFICIAL must name a checkout of the official repository")


def load_official(root, directory):
    with open(os.path.join(directory, "config.json")) as file:
        name = json.load(file)["architectures"][0]
    model_class, config_class = official_classes(root, name)
    config = config_class.from_pretrained(directory)
    model, info = model_class.from_pretrained(directory, config=config, output_loading_info=True)
    for kind in ("unexpected_keys", "mismatched_keys", "error_msgs"):
        check(not info[kind], f"{name}.from_pretrained: {kind} {info[kind]}")
    missing = [k for k in info["missing_keys"] if not k.endswith(("lm_head.weight", "shared_embedding.positional_embedding"))]
    check(not missing, f"{name}.from_pretrained: missing {missing}")
    return model.eval()


def check_names_of_trained_part(sca, directory, work, model):
    """The trained part alone: names and shapes that the official class has."""
    file = os.path.join(work, "trained.safetensors")
    run([sca, "export", "--model", directory, "--to", file, "--trained-only"])
    own = {k: v.shape for k, v in model.state_dict().items()}
    part = load_file(file)
    check(len(part) > 0, "the trained part is empty")
    for name, value in part.items():
        check(own.get(name) == value.shape, f"trained part: {name} {tuple(value.shape)}, the class has {own.get(name)}")


@torch.no_grad()
def whole(sca, directory, work, photo, pixels, boxes):
    model = load_official(os.environ["SCA_OFFICIAL"], directory)
    check_names_of_trained_part(sca, directory, work, model)
    with open(os.path.join(directory, "generation_config.json")) as file:
        settings = json.load(file)
    for beams in (1, 3):
        out = model.generate(pixel_values=pixels, input_boxes=torch.tensor([boxes]), multimask_output=True,
                             max_length=20, num_beams=beams, pad_token_id=settings["eos_token_id"], task_type=["caption"])
        records = describe(sca, directory, photo, boxes, beams)
        compare_masks(records, out.iou_scores, out.segmentation_outputs.pred_masks, pixels.shape[-1])
        for i, record in enumerate(records):
            ids = out.sequences[0, i, 0].tolist()[1:]  # the library puts the BOS id in front
            if settings["eos_token_id"] in ids:
                ids = ids[:ids.index(settings["eos_token_id"]) + 1]
            check(record["tokens"] == ids, f"{beams} beams, region {i}: tokens {record['tokens']}, official {ids}")
            compare_logprob(model, out.projected_query_logits, record, i, f"{beams} beams, region {i}")


def compare_logprob(model, prefixes, record, region, what):
    """Sum of the log-probabilities of the tokens behind the region's prefix."""
    rows = prefixes.shape[1]
    width = model.language_model.get_input_embeddings().weight.shape[1]
    prefix = prefixes.reshape(rows, -1, width)[region][None]
    ids = torch.tensor([record["tokens"]])
    inputs = torch.cat([prefix, model.language_model.get_input_embeddings()(ids)], 1)
    logits = model.language_model(inputs_embeds=inputs).logits[0, prefix.shape[1] - 1:-1]
    sum_ = logits.log_softmax(-1).gather(1, ids[0][:, None]).sum().item()
    check(abs(sum_ - record["logprob"]) <= LOGPROB_APART, f"{what}: log-probability {record['logprob']}, official {sum_}")


# ---- the parts that transformers has --------------------------------------------------------------------------------


@torch.no_grad()
def parts(sca, directory, photo, pixels, boxes):
    with open(os.path.join(directory, "config.json")) as file:
        config = json.load(file)
    weights = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            weights.update(load_file(os.path.join(directory, name)))
    weights = {k: v.float() for k, v in weights.items()}

    sam = transformers.SamModel(transformers.SamConfig(config["vision_config"], config["prompt_encoder_config"],
                                                       config["mask_caption_decoder_config"])).eval()
    extra = ("mask_decoder.additional_transformer.", "mask_decoder.caption_tokens.", "language_model.", "task_tokens.",
             "language_project.")
    part = {k: v for k, v in weights.items() if not k.startswith(extra)}
    part["prompt_encoder.shared_embedding.positional_embedding"] = part["shared_image_embedding.positional_embedding"]
    sam.load_state_dict(part, strict=True)

    text = dict(config["text_config"])
    language = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(text.pop("model_type"), **text))
    part = {k[len("language_model."):]: v for k, v in weights.items() if k.startswith("language_model.")}
    if "lm_head.weight" not in part:
        check(language.config.tie_word_embeddings, "lm_head.weight is absent and the head is not tied")
        part["lm_head.weight"] = part["transformer.wte.weight"]
    language.load_state_dict(part, strict=True)

    out = sam(pixel_values=pixels, input_boxes=torch.tensor([boxes]), multimask_output=True)
    compare_masks(describe(sca, directory, photo, boxes, 1), out.iou_scores, out.pred_masks, pixels.shape[-1])


def compare_masks(records, scores, masks, side):
    masks = torch.nn.functional.interpolate(masks[0], (side, side), mode="bilinear", align_corners=False) > 0
    for i, record in enumerate(records):
        official = scores[0, i].tolist()
        apart = max(abs(a - b) for a, b in zip(record["iou"], official))
        check(len(record["iou"]) == len(official) and apart <= SCORES_APART,
              f"region {i}: scores {record['iou']}, official {official}")
        found, right = mask_of(record["mask"]), masks[i, int(np.argmax(record["iou"]))].numpy()
        union = (found | right).sum()
        share = (found & right).sum() / union if union else 1.0
        check(share >= MASKS_SHARE, f"region {i}: intersection over union of the masks {share}")


def main():
    sca, source, work, dtype = sys.argv[1:]
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(max(1, min(2, os.cpu_count() or 1)))
    directory, photo = os.path.join(work, "exported"), os.path.join(work, "picture.png")
    run([sca, "export", "--model", source, "--to", directory, "--dtype", dtype])
    with open(os.path.join(directory, "config.json")) as file:
        side = json.load(file)["vision_config"]["image_size"]
    image, boxes = picture(side), boxes_of(side)
    write_png(photo, image)
    pixels = pixels_of(image, directory)
    if os.environ.get("SCA_OFFICIAL"):
        whole(sca, directory, work, photo, pixels, boxes)
        print("official: loaded, compared with the official classes")
    else:
        parts(sca, directory, photo, pixels, boxes)
        print("official: SCA_OFFICIAL names no checkout; SAM and the language model compared with transformers")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()

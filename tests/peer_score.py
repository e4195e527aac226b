"""`sca score` beside pycocoevalcap (with Java) on COCO's captions of 2014: one caption of each validation image against its
others. tools/bench_score.sh runs it. The two take turns; the table has medians, and every score must be equal.

  peer_score.py --sca PROGRAM --work DIR [--rounds N]
  peer_score.py --peer RESULTS REFERENCES            one run of the peer; prints JSON
"""
import argparse
import importlib.util
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
import zipfile

PACKAGE = os.path.dirname(importlib.util.find_spec("pycocoevalcap").origin or "") or list(
    importlib.util.find_spec("pycocoevalcap").submodule_search_locations)[0]
GOALS = {"ratio": 20.0, "bytes": 1e9, "load_s": 0.5}


def make_input(work):
    """The first caption of every image is the result; the file of references holds the others."""
    results, references = os.path.join(work, "results.json"), os.path.join(work, "references.json")
    if os.path.exists(results) and os.path.exists(references):
        return results, references
    with zipfile.ZipFile(os.path.join(PACKAGE, "spice", "spice-1.0.jar")) as jar:
        captions = json.loads(jar.read("coco/annotations/captions_val2014.json"))
    first, others = {}, []
    for annotation in captions["annotations"]:
        if annotation["image_id"] in first:
            others.append(annotation)
        else:
            first[annotation["image_id"]] = annotation["caption"]
    captions["annotations"] = others
    os.makedirs(work, exist_ok=True)
    with open(references, "w") as file:
        json.dump(captions, file)
    with open(results, "w") as file:
        json.dump([{"image_id": image, "caption": caption} for image, caption in first.items()], file)
    return results, references


ODD = """a the dog dogs running ran cat café naïve 猫 在 垫子 上 😀 👨‍👩‍👧 Ünïcode isn't can't 3.5 $5 U.S. e-mail (red) [blue]
"quoted" ‘curly’ — … www.x.com #tag ½ ﬁ İ ß O'Neil gonna sitting sits near close to next beside of man's men's""".split()


def make_odd(work):
    """Empty captions, captions of a thousand words, letters of many scripts."""
    draw = random.Random(5)
    results, references = os.path.join(work, "odd-results.json"), os.path.join(work, "odd-references.json")
    found, annotations = [], []
    for image in range(150):
        length = draw.choice([0, 1, 1000] + list(range(2, 20)))
        others = [draw.choices(ODD, k=draw.randint(1, 20 if length < 1000 else 1000)) for _ in range(draw.randint(1, 4))]
        words = draw.choice(others) if length > 1 and draw.random() < 0.3 else draw.choices(ODD, k=length)
        found.append({"image_id": image, "caption": " ".join(words)})
        annotations += [{"id": len(annotations) + k, "image_id": image, "caption": " ".join(other)}
                        for k, other in enumerate(others)]
    with open(references, "w") as file:
        json.dump({"images": [{"id": r["image_id"]} for r in found], "annotations": annotations}, file)
    with open(results, "w") as file:
        json.dump(found, file)
    return results, references


# ---- one run of the peer: only its metrics are timed, not its reading of the files ------------------------------------

def run_peer(results, references):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with open(references) as file:
        captions = json.load(file)
    gts = {image["id"]: [] for image in captions["images"]}
    for annotation in captions["annotations"]:
        gts[annotation["image_id"]].append({"caption": annotation["caption"]})
    with open(results) as file:
        found = {r["image_id"]: [{"caption": r["caption"]}] for r in json.load(file)}
    res = {image: found[image] for image in gts}
    seconds, scores = {}, {}
    start = time.monotonic()
    gts, res = PTBTokenizer().tokenize(gts), PTBTokenizer().tokenize(res)
    seconds["tokenize"] = time.monotonic() - start
    for name, scorer in (("BLEU", Bleu(4)), ("METEOR", None), ("ROUGE-L", Rouge()), ("CIDEr-D", Cider())):
        start = time.monotonic()
        scorer = scorer or Meteor()
        value = scorer.compute_score(gts, res)[0]
        seconds[name] = time.monotonic() - start
        scores.update({f"BLEU-{i + 1}": v for i, v in enumerate(value)} if name == "BLEU" else {name: float(value)})
        del scorer
    peak = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "scores": scores, "python_bytes": peak[0], "java_bytes": peak[1]}))


# ---- taking turns -------------------------------------------------------------------------------------------------------

def run_ours(sca, *arguments):
    """Everything: start of the program, reading, METEOR's data, scores. -> seconds, scores, bytes"""
    start = time.monotonic()
    child = subprocess.Popen([sca, "score", "--format", "json", *arguments], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
    scores = json.loads(child.stdout.read())
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit("sca score failed")
    return time.monotonic() - start, scores, usage.ru_maxrss * 1024


def forget(path):
    """Drops the file from the page cache."""
    os.sync()
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load_seconds(sca, work):
    """A single caption: what is left is mostly the opening of METEOR's data. -> read from the disk, from memory"""
    one = os.path.join(work, "one.json")
    with open(one, "w") as file:
        json.dump([{"_id": 0, "split": "inference", "candidates": ["a dog runs"], "references": ["the dog ran"]}], file)
    data = os.path.join(os.path.dirname(os.path.realpath(sca)), "resources", "meteor-en.data")
    cold, warm = [], []
    for _ in range(5):
        forget(data)
        cold.append(run_ours(sca, one)[0])
        warm.append(run_ours(sca, one)[0])
    return statistics.median(cold), statistics.median(warm)


def processor():
    with open("/proc/cpuinfo") as file:
        name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} x {name}"


def same(ours, peer):
    """METEOR within 1e-6, the others within 1e-9."""
    return all(abs(ours[k] - v) <= (1e-6 if k == "METEOR" else 1e-9) for k, v in peer.items())


def peer_once(files):
    return json.loads(subprocess.run([sys.executable, __file__, "--peer", *files], check=True,
                                     stdout=subprocess.PIPE).stdout.splitlines()[-1])


def odd_agrees(sca, work):
    files = make_odd(work)
    return same(run_ours(sca, files[0], "--references", files[1])[1], peer_once(files)["scores"])


def take_turns(sca, files, rounds, with_peer):
    results, references = files
    ours, peers = [], []
    for turn in range(rounds):
        ours += [run_ours(sca, results, "--references", references) for _ in range(2)]
        if with_peer:
            peers.append(peer_once(files))
            ours.append(run_ours(sca, results, "--references", references))
    return ours, peers


def report(ours, peers, load):
    """The table and what misses its goal."""
    seconds, most = statistics.median(o[0] for o in ours), max(o[2] for o in ours)
    ours_text = f"{seconds:.2f} s ({min(o[0] for o in ours):.2f} to {max(o[0] for o in ours):.2f}, n={len(ours)})"
    missed = [] if most < GOALS["bytes"] else ["memory"]
    missed += [] if max(load) < GOALS["load_s"] else ["METEOR data"]
    print(f"{processor()}; {ours[0][1]['regions']} images\n\n| | ours | pycocoevalcap | ratio |\n|---|--:|--:|--:|")
    if peers:
        total = [sum(p["seconds"].values()) for p in peers]
        ratio = statistics.median(total) / seconds
        print(f"| all metrics but SPICE | {ours_text} | {statistics.median(total):.1f} s "
              f"({min(total):.1f} to {max(total):.1f}, n={len(total)}) | {ratio:.1f} |")
        for name in peers[0]["seconds"]:
            print(f"| of it: {name} | | {statistics.median(p['seconds'][name] for p in peers):.1f} s | |")
        memory = f"{max(p['python_bytes'] for p in peers) / 1e9:.2f} GB Python, " \
                 f"{max(p['java_bytes'] for p in peers) / 1e9:.2f} GB Java"
        missed += [] if ratio >= GOALS["ratio"] else ["speed"]
        missed += [] if all(same(o[1], p["scores"]) for o in ours for p in peers) else ["equality of scores"]
    else:
        print(f"| all metrics but SPICE | {ours_text} | | |")
        memory = ""
    print(f"| peak memory | {most / 1e9:.2f} GB | {memory} | |")
    print(f"| one caption, METEOR's data from disk | {load[0]:.3f} s | | |")
    print(f"| one caption, METEOR's data in memory | {load[1]:.3f} s | | |\n")
    print(", ".join(f"{k} {v:.6f}" for k, v in ours[0][1].items() if isinstance(v, float)))
    return missed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sca")
    parser.add_argument("--work")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peer", nargs=2)
    a = parser.parse_args()
    if a.peer:
        return run_peer(*a.peer)
    with_peer = shutil.which("java") is not None
    if not with_peer:
        print("Java is not installed: our times alone", file=sys.stderr)
    files = make_input(a.work)
    load = load_seconds(a.sca, a.work)
    agrees = not with_peer or odd_agrees(a.sca, a.work)
    missed = report(*take_turns(a.sca, files, a.rounds, with_peer), load) + ([] if agrees else ["odd captions"])
    if missed:
        sys.exit("missed: " + ", ".join(missed))


if __name__ == "__main__":
    main()

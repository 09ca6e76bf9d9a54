"""The parts of `device.py` that check whether results on a device are right."""

import gc
import hashlib
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from device_setting import Numbers, Opened, Setting, allocated, record_of, seconds_of

from stratalens.cli.main import main as stratalens_main
from stratalens.harvest.state.layer_state import unpack_state
from stratalens.harvest.state.passage_values import EncodedBatch, reduce_batch
from stratalens.models.batches import pack_batches
from stratalens.models.memory import ALLOCATION_FAILURES, release_device_memory
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.saes.activations import SparseLatents

MIN_SAME_TOP = 0.9
"""Share of the best features that must be the same on two devices: rounding moves those that nearly tie."""
MAX_AUROC_CHANGE = 0.02
"""Largest change of the AUROC of a reported feature. Where two pre-activations differ by less than rounding, another
latent is among the k largest of a token, so that single values change, and ranks of documents with them."""
MAX_CHANGE = 2e-3
"""Largest change of the specialization of a reported feature, relative to the largest of the layer: rounding of float32
over all blocks is 1e-5, the rest is again that of single tokens."""


def analysed(options: dict[str, object], output: Path) -> Path:
    """Run `analyze` in this process."""
    words = words_of(options | {"output_dir": str(output)})
    assert stratalens_main(["analyze", "--quiet", *words]) == 0, "the run failed"
    return output


def words_of(options: dict[str, object]) -> list[str]:
    """Options as they are typed."""
    words = []
    for name, value in options.items():
        own = map(str, value if isinstance(value, tuple) else (value,))
        words += [f"--{name}"] if value is True else [f"--{name}", *own]
    return words


def compared(runs: Sequence[Path], layers: Sequence[str]) -> Numbers:
    """Compare two results, that of the CPU last: fit of the SAEs, statistics of the reported features, labels."""
    found: Numbers = {}
    fits = [[check["own"] for check in record_of(one)["self_check"].values()] for one in runs]
    found["fvu_change"] = max(abs(a["fvu"] - b["fvu"]) for a, b in zip(*fits, strict=True))
    same, change, auroc = [], [0.0], [0.0]
    for layer in layers:
        tables = [pd.read_parquet(one / f"layer_{layer}" / "all_features.parquet") for one in runs]
        columns = [
            {name: table[name].to_numpy(float) for name in ("specialization", "auroc")}
            for table in (one.sort_values("feature_number") for one in tables)
        ]
        assert len(tables[0]) == len(tables[1]), "each has one row a latent"
        top = [set(np.argsort(-one["specialization"])[:30]) for one in columns]
        both = sorted(top[0] & top[1])
        same.append(len(both) / len(top[1]))
        largest = np.abs(columns[1]["specialization"]).max()
        change.append(float(np.abs(columns[0]["specialization"] - columns[1]["specialization"])[both].max() / largest))
        auroc.append(float(np.nanmax(np.abs(columns[0]["auroc"] - columns[1]["auroc"])[both])))
    tables = [pd.read_csv(one / "consolidated_top_features_all_layers.csv") for one in runs]
    labels = tables[0].merge(tables[1], on=["layer", "feature_number"])
    found["same_labels"] = float(np.mean(labels["label_x"].to_numpy() == labels["label_y"].to_numpy()))
    found |= {"same_top_30": min(same), "specialization_change": max(change), "auroc_change": max(auroc)}
    found["right"] = min(same) >= MIN_SAME_TOP and max(change) <= MAX_CHANGE and max(auroc) <= MAX_AUROC_CHANGE
    return found


def tiny_run(setting: Setting) -> Numbers:
    """Harvest, fit check, evidence, lens and report of the tiny model: on the device against the CPU, in float32."""
    small = Setting(setting.device, True, setting.folder)
    own, places = small.options(dtype="float32"), (str(setting.device), "cpu")
    runs = [analysed(own | {"device": name}, setting.folder / f"tiny_{at}") for at, name in enumerate(places)]
    files = [sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) for run in runs]
    return compared(runs, small.layers) | {"same_files": files[0] == files[1]}


def embedded_run(setting: Setting) -> Numbers:
    """The embedded model with all its SAEs on the device against the CPU, in float32."""
    own, places = setting.options(dtype="float32"), (str(setting.device), "cpu")
    runs = [analysed(own | {"device": name}, setting.folder / f"run_{at}") for at, name in enumerate(places)]
    stages = [record_of(run)["seconds"] for run in runs]
    return compared(runs, setting.layers) | {"seconds": stages[0], "cpu_seconds": stages[1]}


def reduction(setting: Setting) -> Numbers:
    """`reduce` of a batch of a wide SAE against sums by definition, in float64 on the CPU."""
    rows, width, k, latents = (4, 16, 8, 2048) if setting.small else (64, 256, 32, 131_072)
    generator = torch.Generator().manual_seed(0)
    batch = next(pack_batches([np.arange(2, width + 2)] * rows, rows * width, ()))
    kept = batch.countable.nonzero()
    latent = torch.stack([torch.randperm(latents, generator=generator)[:k] for _ in range(len(kept))])
    value = torch.rand(len(kept), k, generator=generator) + 0.1
    token = torch.arange(len(kept))[:, None].expand(-1, k)
    classes = torch.randint(0, len(TOKEN_CLASSES), (width + 2,), generator=generator)
    on = setting.device
    sparse = SparseLatents(token.flatten().to(on), latent.flatten().to(on), value.flatten().to(on))
    sums = torch.zeros(rows, device=on), torch.zeros(rows, 8, device=on)
    encoded, placed = EncodedBatch(batch.countable.to(on), *sums, sparse), batch.to(on)
    columns = {name: column.cpu() for name, column in reduce_batch(encoded, placed, latents, classes.to(on)).items()}
    row = kept[:, 0][token.flatten()].numpy()
    expected = np.zeros((rows, latents))
    fired = np.zeros((rows, latents), np.int64)
    np.add.at(expected, (row, latent.flatten().numpy()), value.flatten().double().numpy())
    np.add.at(fired, (row, latent.flatten().numpy()), 1)
    cells = columns["passage"].numpy(), columns["latent"].numpy()
    total = columns["mean"].numpy() * (width - 1)
    error = float(np.abs(total - expected[cells]).max() / expected.max())
    complete = int((fired > 0).sum()) == len(columns["latent"])
    counts = bool(np.array_equal(columns["positions_fired"].numpy(), fired[cells]))
    repeated = reduce_batch(encoded, placed, latents, classes.to(on))
    again = all(torch.equal(columns[name], repeated[name].cpu()) for name in columns)
    seconds = seconds_of(lambda: reduce_batch(encoded, placed, latents, classes.to(on)), on)
    right = error < 1e-5 and complete and counts and again
    return {"entries": len(total), "error": error, "same_bits_again": again, "ms": 1e3 * seconds, "right": right}


def shard_digest(setting: Setting, batch_tokens: int | None = None) -> str:
    """Digest of the packed states of the first shard."""
    opened = Opened.of(setting.options())
    (finished,) = opened.read(opened.shards()[:1], batch_tokens)
    return _digest(finished.packed.values())


def _digest(packed: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(packed)).hexdigest()


def same_bytes(setting: Setting) -> Numbers:
    """The same shard twice in this process, and once in another."""
    opened = Opened.of(setting.options())
    shards = opened.shards()[:1]
    digests = [_digest(finished.packed.values()) for _ in range(2) for finished in opened.read(shards)]
    code = (
        "import sys; from pathlib import Path; import torch; from device_checks import shard_digest; "
        "from device_setting import Setting; torch.set_num_threads(int(sys.argv[4])); "
        "print(shard_digest(Setting(torch.device(sys.argv[1]), sys.argv[2] == 'True', Path(sys.argv[3]))))"
    )
    words = [str(setting.device), str(setting.small), str(setting.folder), str(torch.get_num_threads())]
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    other = done.stdout.split()[-1]
    twice, elsewhere = digests[0] == digests[1], digests[0] == other
    return {"twice_in_one_process": twice, "in_another_process": elsewhere, "right": twice and elsewhere}


def out_of_memory(setting: Setting) -> Numbers:
    """Let memory run out: batches are halved, all text is read, and memory is back at its level afterwards."""
    opened = Opened.of(setting.options())
    shards, device = opened.shards()[:1], setting.device
    (whole,) = opened.read(shards)
    gc.collect()
    release_device_memory()
    before = allocated(device)
    limit = _limited_memory(setting, opened)
    try:
        (halved,) = opened.read(shards, 65_536)
    finally:
        limit()
    gc.collect()
    release_device_memory()
    left = allocated(device) - before
    states = [{place: unpack_state(body) for place, body in one.packed.items()} for one in (whole, halved)]
    split = min(state.batches_split for state in states[1].values())
    errors = []
    for place, state in states[0].items():
        means = [one.stats.activation_sum for one in (state, states[1][place])]
        errors.append(abs(float(means[0].sum() - means[1].sum())) / float(means[0].sum()))
    right = split > 0 and max(errors) < 1e-2 and left <= 2**20 and whole.tokens == halved.tokens
    return {"batches_halved": split, "change_of_sums": max(errors), "bytes_left": left, "right": right}


def _limited_memory(setting: Setting, opened: Opened):
    """Let little memory be left; return what lifts the limit. On the CPU large batches fail by themselves."""
    if setting.device.type == "cuda":
        total = torch.cuda.get_device_properties(setting.device).total_memory
        allowed = torch.cuda.memory_reserved(setting.device) + 300_000_000
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), setting.device)
        return lambda: torch.cuda.set_per_process_memory_fraction(1.0, setting.device)

    def fail(_module: object, _args: object, options: dict) -> None:
        if options["input_ids"].numel() > 512:
            raise RuntimeError(ALLOCATION_FAILURES[0])

    handle = opened.model.model.register_forward_pre_hook(fail, with_kwargs=True)
    return handle.remove


def waits(setting: Setting) -> Numbers:
    """Where the host waits for the device while a shard is read, by line; and the operations that take longest."""
    opened = Opened.of(setting.options())
    shards = opened.shards()[:1]
    list(opened.read(shards))
    activities = [torch.profiler.ProfilerActivity.CPU]
    if setting.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen, torch.profiler.profile(activities=activities) as profile:
        warnings.simplefilter("always")
        list(opened.read(shards))
    if setting.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    lines = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in seen if "synchroniz" in str(one.message))
    name = "self_device_time_total" if setting.device.type == "cuda" else "self_cpu_time_total"
    slowest = sorted(profile.key_averages(), key=lambda event: -getattr(event, name))[:8]
    times = {event.key: round(getattr(event, name) / 1e3, 2) for event in slowest}
    return {"waits": sum(lines.values()), "waits_by_line": dict(lines.most_common(12)), "slowest_ms": times}

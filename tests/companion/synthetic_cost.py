"""Made-up recordings of the benchmarks behind :mod:`companion.cost`."""

from __future__ import annotations

from varreg.lab.ledger import Ledger

CPU, GPU = "Some CPU, 2 cores", "Some Accelerator"
PENALTIES = {  # name: time of a step, against none
    "no penalty": 1.0,
    "varreg, all features": 1.02,
    "varreg, ratio 0.2": 1.02,
    "no penalty, again": 0.99,
    "released recipe, all features": 1.2,
    "released recipe, ratio 0.2": 1.1,
    "DeCov": 1.3,
}
NETWORKS = {"small_cnn": (28, 128), "resnet18": (64, 32), "paper_cnn": (224, 32)}


def overhead(**changed):
    """Ratios as in ``PENALTIES``; ``changed`` replaces columns of the rows of varreg."""
    return [
        {
            "model": model,
            "pixels": pixels,
            "batch": batch,
            "penalty": penalty,
            "step_ms": 10 * ratio,
            "ratio": ratio,
            "low": ratio - 0.05,
            "high": ratio + 0.05,
            "peak_mb": 20.0,
            "peak_ratio": 1.2 if penalty == "DeCov" else 1.0,
        }
        | (changed if penalty.startswith("varreg") else {})
        for model, (pixels, batch) in NETWORKS.items()
        for penalty, ratio in PENALTIES.items()
    ]


def throughput(loop=4.0, keras=2.0):
    cases = {"MedMNIST loop": ("small_cnn", 28, loop), "Keras 3, x": ("paper_cnn", 224, keras)}
    return [
        {
            "model": model,
            "pixels": pixels,
            "peer": peer,
            "varreg_images_a_second": 100 * ratio,
            "peer_images_a_second": 100.0,
            "ratio": ratio,
            "low": ratio - 0.1,
            "high": ratio + 0.1,
        }
        for peer, (model, pixels, ratio) in cases.items()
    ]


def roofline(share=0.8):
    """The paper's network is bound by memory, the small CNN by arithmetic."""
    return [
        {
            "model": model,
            "pixels": pixels,
            "batch": 32,
            "step_ms": 10.0,
            "flop_a_byte": intensity,
            "gflop_a_second": share * min(100, 10 * intensity),
            "gb_a_second": share * min(100, 10 * intensity) / intensity,
            "peak_gflop_a_second": 100.0,
            "copy_gb_a_second": 10.0,
            "share_of_roof": share,
            "bound_by": bound,
        }
        for model, pixels, intensity, bound in (
            ("paper_cnn", 224, 1.0, "memory"),
            ("small_cnn", 28, 20.0, "arithmetic"),
        )
    ]


def bandwidth():
    return [
        {
            "megabytes": megabytes,
            "batch": 64,
            "penalty": penalty,
            "copy_gb_a_second": 50.0,
            "gb_a_second": 50 * share,
            "share_of_copy": share,
        }
        for megabytes, ours in ((10, 0.3), (100, 0.75), (400, 0.65))
        for penalty, share in (("varreg", ours), ("torch.var", 0.05))
    ]


def ensemble():
    return [
        {
            "model": "small_cnn",
            "size": 28,
            "batch": 128,
            "members": members,
            "images_per_second_alone": 1000,
            "images_per_second": 1000 * members // 2,
            "gain": members / 2,
            "low": members / 2 - 0.1,
            "high": members / 2 + 0.1,
        }
        for members in (1, 4, 18)
    ]


def growth(exponent=1.0, fixed=1e-3):
    """Exactly on the curves, the ratio flat."""
    values = {
        "batch": (32, 128, 512, 1024),
        "features": (1e3, 1e4, 1e5, 1e6),
        "ratio": (0.01, 0.1, 1.0),
        "images": (1e3, 1e4, 1e5),
    }
    return [
        {
            "quantity": quantity,
            "value": value,
            "seconds": 0.01 if quantity == "ratio" else fixed + 1e-5 * value**exponent,
        }
        for quantity, sizes in values.items()
        for value in sizes
    ]


def decoding():
    return [
        {
            "file_pixels": edge,
            "file_kilobytes": edge / 10,
            "files": 100,
            "threads": threads,
            "images_a_second": 1e5 * threads / edge,
        }
        for edge in (64, 256)
        for threads in (1, 2)
    ]


def larger_than_memory():
    return [
        {
            "images": images,
            "array_megabytes": images / 1000,
            "megabytes_before": 200.0,
            "decoding_images_a_second": 5000.0,
            "decoding_peak_megabytes": 210.0,
            "training_images_a_second": 4000.0,
            "training_peak_megabytes": 300 + peak,
        }
        for images, peak in ((1000, 0.0), (10_000, 5.0), (100_000, 7.0))
    ]


def project():
    return [{"command": "make book", "seconds": 40.0}, {"command": "make test", "seconds": 80.0}]


MADE = {
    made.__name__: made
    for made in (
        overhead, bandwidth, roofline, throughput, ensemble, growth, decoding,
        larger_than_memory, project,
    )
}  # fmt: skip


def record(
    results,
    question,
    rows,
    *,
    device=CPU,
    at="2026-01-01T00:00:00+00:00",
    note="a note",
    commit="abc",
    threads=2,
):
    """Append a recording as the benchmarks do."""
    ledger = Ledger(question, results / "benchmarks")
    run = {
        "key": f"key{len(ledger.keys()):09}",
        "note": note,
        "version": "0.1.0",
        "commit": commit,
        "torch_version": "2.6.0",
        "device": device,
        "threads": threads,
        "seconds": 1.0,
        "recorded_at": at,
    }
    assert ledger.append(run, rows)


def record_all(results, device=CPU):
    for question, rows in MADE.items():
        record(results, question, rows(), device=device)

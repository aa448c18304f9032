"""FP8 emulation against an independent computation in float64; which layers it acts on; TP against one rank.

The computation here rounds by arithmetic on exponents, the emulation by torch's float8 types. Products are sums of 160
to 256 terms in fp32: 1e-5 of the largest entry is ten times what their order moves, and a hundredth of one rounding.
"""

import pytest
from launcher import launch

from nemo_amalia.utils.errors import UserError

SUMS = 1e-5
#: mantissa bits, smallest normal exponent, largest value
TYPES = {"e4m3": (3, -6, 448.0), "e5m2": (2, -14, 57344.0)}


def rounded(values, kind):
    """float64 values as the FP8 type rounds them: half to even, saturating."""
    import numpy as np

    bits, smallest, largest = TYPES[kind]
    exponent = np.floor(np.log2(np.maximum(np.abs(values), 2.0**-60)))
    step = 2.0 ** (np.maximum(exponent, smallest) - bits)
    return np.clip(np.rint(values / step) * step, -largest, largest)


def through(values, kind, block=None):
    """float64 [M, N] quantised and back, in blocks of (rows, columns) with scales of powers of two."""
    import numpy as np

    largest = TYPES[kind][2]
    if block is None:
        scale = largest / np.abs(values).max()
        return rounded(values * scale, kind) / scale
    out = np.zeros_like(values)
    for top in range(0, values.shape[0], block[0]):
        for left in range(0, values.shape[1], block[1]):
            part = np.s_[top : top + block[0], left : left + block[1]]
            amax = np.abs(values[part]).max()
            scale = 2.0 ** np.floor(np.log2(largest / amax)) if amax else 1.0
            out[part] = rounded(values[part] * scale, kind) / scale
    return out


def products(scaling, backward):
    """Largest relative differences of y, dx and dw; x [192, 160], w [200, 160], not whole blocks."""
    import torch

    from nemo_amalia.model.fp8_emulation import Fp8Settings, fp8_linear

    g = torch.Generator().manual_seed(3)
    x, w, dy = (torch.randn(shape, generator=g) for shape in ((192, 160), (200, 160), (192, 200)))
    x, dy = x * torch.logspace(-4, 2, 192)[:, None], dy * 1e-5
    x.requires_grad_(), w.requires_grad_()
    kind = {"e5m2": torch.float8_e5m2, "e4m3": torch.float8_e4m3fn}[backward]
    y = fp8_linear(x.view(96, 2, 160), w, Fp8Settings(scaling, kind))
    assert y.shape == (96, 2, 200)
    y.backward(dy.view(96, 2, 200))
    rows, columns, square = ((1, 128), (128, 1), (128, 128)) if scaling == "blockwise" else (None,) * 3
    x64, w64, d64 = (t.detach().double().numpy() for t in (x, w, dy))
    right = through(w64, "e4m3", square)
    want = {
        "y": through(x64, "e4m3", rows) @ right.T,
        "dx": through(d64, backward, rows) @ right,
        "dw": through(d64, backward, columns).T @ through(x64, "e4m3", columns),
    }
    exact = {"y": x64 @ w64.T, "dx": d64 @ w64, "dw": d64.T @ x64}
    got = {"y": y.detach().view(192, 200), "dx": x.grad, "dw": w.grad}
    off, error = {}, {}
    for name, value in got.items():
        off[name] = abs(value.double().numpy() - want[name]).max() / abs(want[name]).max()
        error[name] = abs(value.double().numpy() - exact[name]).max() / abs(exact[name]).max()
    return off, error


def numbers():
    """Rounding of single numbers, in one rank: what each test below asks about."""
    import torch

    from nemo_amalia.model.fp8_emulation import Fp8Settings, dequantise, fp8_linear, quantise

    found = {}
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        every = torch.arange(256, dtype=torch.uint8).view(kind).float()
        every = every[every.isfinite()][None]
        found[f"exact {kind}"] = torch.equal(dequantise(*quantise(every, kind)), every)
    x = torch.randn(300, 200, generator=torch.Generator().manual_seed(1)) * torch.logspace(-6, 3, 200)
    for block in (None, (1, 128), (128, 1), (128, 128)):
        data, scale = quantise(x, torch.float8_e4m3fn, block)
        step = dequantise(torch.full_like(data, 2.0**-10, dtype=torch.float32), scale, block)  # half a subnormal step
        found[f"bound {block}"] = bool(
            ((dequantise(data, scale, block) - x).abs() <= torch.maximum(x.abs() / 16, step)).all()
        )
    zeros = torch.zeros(4, 128)
    found["zeros"] = torch.equal(dequantise(*quantise(zeros, torch.float8_e4m3fn, (1, 128)), (1, 128)), zeros)
    found["products"] = {(s, b): products(s, b) for s in ("tensorwise", "blockwise") for b in ("e4m3", "e5m2")}
    frozen, x = torch.randn(8, 16), torch.randn(4, 16, requires_grad=True)
    fp8_linear(x, frozen, Fp8Settings("blockwise", torch.float8_e5m2)).sum().backward()
    found["frozen"] = frozen.grad is None and bool(x.grad.abs().max() > 0)
    return found


@pytest.fixture(scope="module")
def found():
    return launch(numbers, 1)[0]


def test_representable_values_stay_as_they_are(found):
    assert found["exact torch.float8_e4m3fn"] and found["exact torch.float8_e5m2"] and found["zeros"]


@pytest.mark.parametrize("block", [None, (1, 128), (128, 1), (128, 128)])
def test_others_move_by_half_a_step_at_most(found, block):
    assert found[f"bound {block}"]


@pytest.mark.parametrize("case", [(s, b) for s in ("tensorwise", "blockwise") for b in ("e4m3", "e5m2")])
def test_products_are_those_of_an_independent_computation(found, case):
    off, error = found["products"][case]
    assert all(value < SUMS for value in off.values()), off
    assert all(value > 1e-3 for value in error.values()), ("nothing was rounded", error)


def test_a_frozen_weight_passes_the_gradient_on(found):
    assert found["frozen"]


def models(cases):
    """Per case: the classes of linears by place, loss, and trained parameters without a gradient."""
    import torch.distributed as dist
    from tiny_model import build, make_batch, make_provider, run_step

    from nemo_amalia.model.fp8_emulation import Fp8Emulation

    dist.init_process_group("gloo")
    results = {}
    for name, options in cases.items():
        provider = make_provider(**options)
        model = build(provider).module
        places = [place for place, module in model.named_modules() if isinstance(module, Fp8Emulation)]
        from megatron.core import parallel_state as ps

        ps.destroy_model_parallel()
        step = run_step(provider, [make_batch(provider, packed=True)])
        still = [place for place, g in step.gradients.items() if not g.abs().max() > 0]
        results[name] = dict(places=places, loss=step.loss, norm=step.norm, still=still)
    return results


FP8 = dict(fp8="hybrid", fp8_recipe="tensorwise")
MODELS = {
    "plain": {},
    "all layers": FP8,
    "first and last not": FP8 | dict(first_last_layers_bf16=True),
    "blocks": dict(fp8="e4m3", fp8_recipe="blockwise"),
    "recomputed": FP8 | dict(recompute_granularity="full", recompute_method="uniform", recompute_num_layers=1),
}
LINEARS = ("self_attention.linear_proj", "self_attention.linear_qkv", "mlp.linear_fc1", "mlp.linear_fc2")


@pytest.fixture(scope="module")
def built():
    return launch(models, 1, {"cases": MODELS})[0]


@pytest.mark.parametrize("case", MODELS)
def test_it_acts_on_the_decoders_linears_alone(built, case):
    layers = {"plain": [], "first and last not": [1, 2]}.get(case, range(4))
    wanted = {f"language_model.decoder.layers.{layer}.{linear}" for layer in layers for linear in LINEARS}
    assert set(built[case]["places"]) == wanted


@pytest.mark.parametrize("case", [name for name in MODELS if name != "plain"])
def test_the_loss_moves_a_little_and_gradients_flow(built, case):
    plain, fp8 = built["plain"], built[case]
    assert 0 < abs(fp8["loss"] - plain["loss"]) / plain["loss"] < 0.02
    assert 0 < abs(fp8["norm"] - plain["norm"]) / plain["norm"] < 0.1
    assert fp8["still"] == []


def test_recomputing_changes_nothing(built):
    assert built["recomputed"]["loss"] == built["all layers"]["loss"]
    assert built["recomputed"]["norm"] == pytest.approx(built["all layers"]["norm"], rel=1e-6)


def refuse():
    import torch.distributed as dist
    from tiny_model import build, make_provider

    dist.init_process_group("gloo")
    try:
        build(make_provider(fp8="hybrid", fp8_recipe="delayed"))
    except UserError as error:
        return str(error)


def test_a_recipe_that_is_not_emulated_is_refused():
    [said] = launch(refuse, 1)
    assert "fp8_recipe is 'delayed'" in said and "take precision=fp8_current" in said and "\n" not in said


def split(sequence_parallel):
    """Column- and row-parallel linears over TP 2 against the whole matrix, where the scales are alike. Differences."""
    import torch
    import torch.distributed as dist
    from megatron.core import parallel_state as ps
    from tiny_model import make_provider

    from nemo_amalia.model.fp8_emulation import (
        Fp8ColumnParallelLinear,
        Fp8RowParallelLinear,
        Fp8Settings,
        fp8_linear,
    )

    dist.init_process_group("gloo")
    worst, rank = {}, dist.get_rank()

    def tokens(t):
        return t.chunk(2, 0)[rank] if sequence_parallel else t

    def features(t):
        return t.chunk(2, -1)[rank]

    for scaling in ("tensorwise", "blockwise"):
        provider = make_provider(
            tensor_model_parallel_size=2, sequence_parallel=sequence_parallel, fp8="hybrid", fp8_recipe=scaling
        )
        provider.initialize_model_parallel(seed=0)
        g = torch.Generator().manual_seed(5)
        for kind, cls, parts in (("column", Fp8ColumnParallelLinear, 0), ("row", Fp8RowParallelLinear, 1)):
            x, w, dy = (torch.randn(s, generator=g) for s in ((256, 1, 256), (256, 256), (256, 1, 256)))
            for half in (0, 128):  # both halves of what TP splits have the same largest value
                x[0, 0, half] = w[half, 0] = w[0, half] = w[half, half] = dy[0, 0, half] = 8.0
            x[128, 0, 0] = 9.0 if kind == "column" else 8.0  # under SP the other rank's tokens have the largest value
            whole, wide = x.clone().requires_grad_(), w.clone().requires_grad_()
            want = fp8_linear(whole, wide, Fp8Settings(scaling, torch.float8_e5m2))
            want.backward(dy)
            extra = dict(gather_output=False) if kind == "column" else dict(input_is_parallel=True)
            layer = cls(
                256, 256, config=provider, init_method=torch.nn.init.zeros_, bias=False, skip_bias_add=True, **extra
            )
            layer.weight.data.copy_(w.chunk(2, parts)[rank])
            into, out = (tokens, features) if kind == "column" else (features, tokens)
            mine = into(x).clone().requires_grad_()
            got, _ = layer(mine)
            got.backward(out(dy))
            pairs = {
                "y": (got, out(want)),
                "dx": (mine.grad, into(whole.grad)),
                "dw": (layer.weight.grad, wide.grad.chunk(2, parts)[rank]),
            }
            for name, (a, b) in pairs.items():
                worst[f"{scaling} {kind} {name}"] = float((a - b).abs().max() / b.abs().max())
        ps.destroy_model_parallel()
    return worst


@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_tensor_parallel_equals_one_rank_where_the_scales_are_alike(sequence_parallel):
    for worst in launch(split, 2, {"sequence_parallel": sequence_parallel}):
        assert len(worst) == 12 and all(value < SUMS for value in worst.values()), worst

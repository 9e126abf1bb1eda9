"""The CSDI network: against published numbers, and by the laws a denoiser obeys."""

import math
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skdiffusion.diffusion.solve import solve
from skdiffusion.diffusion.window.series import WindowedSeries
from skdiffusion.nn import CSDINetwork, load_csdi_checkpoint
from skdiffusion.nn.csdi_layers import _Transformer

SMALL = {
    "n_layers": 2,
    "n_channels": 16,
    "n_heads": 4,
    "n_diffusion_embedding": 16,
    "n_time_embedding": 16,
}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def small_network(n_features=5, seed=0, **sizes):
    """A small network whose last layer is not zero."""
    network = CSDINetwork(n_features, **SMALL, **sizes, generator=rng(seed))
    with torch.no_grad():
        network.output2.weight.normal_(generator=rng(seed + 1))
    return network


def windows(n_windows=3, n_times=7, n_features=5, seed=0):
    """Values, observed mask, and the unobserved cells padded to the same number."""
    values = torch.randn(n_windows, n_times, n_features, generator=rng(seed))
    observed = torch.rand(values.shape, generator=rng(seed + 1)) < 0.6
    rows = [torch.nonzero(~row.flatten())[:, 0] for row in observed]
    cells = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    pad = torch.arange(cells.shape[1]) >= torch.tensor([[len(row)] for row in rows])
    return values * observed, observed, cells, pad


def shown(values, observed):
    """The windows as series of their own, and their rows."""
    series = WindowedSeries.stack(values, observed)
    return series, series.rows(series.offsets[:-1])


def encode(network, values, observed, cells, pad):
    return network.encode(*shown(values, observed), cells, pad)


def loss_of(network, values, observed, targets, generator):
    return network.loss(*shown(values, observed), values, targets, generator)


def noisy(cells, n_draws=2, seed=2):
    return torch.randn(cells.shape[0], n_draws, cells.shape[1], generator=rng(seed))


def test_parameter_count_is_the_papers():
    network = CSDINetwork(35, generator=rng())
    assert sum(p.numel() for p in network.parameters()) == 414_065


@pytest.fixture(scope="module")
def folder(research_data):
    return research_data / "csdi_pretrained"


@pytest.fixture(scope="module")
def network(folder):
    return load_csdi_checkpoint(folder / "model.pth")


class TestPublishedWeights:
    @pytest.mark.parametrize("step", [0, 10, 25, 49])
    def test_noise_prediction_is_the_published_one(self, network, folder, step):
        reference = np.load(folder / "reference_outputs.npz")
        observed = torch.from_numpy(reference["conditional_mask"])
        values = torch.from_numpy(reference["observed"]) * observed
        cells = torch.arange(observed[0].numel()).expand(len(observed), -1)
        x = torch.from_numpy(reference["noisy"]).flatten(1).unsqueeze(1)
        alpha_bar = reference["alpha_bar"][step]
        s = math.sqrt((1 - alpha_bar) / alpha_bar)
        # Only the unobserved cells are inputs; the observed ones are listed as padding.
        context = encode(network, values, observed, cells, observed.flatten(1))
        z = x / math.sqrt(alpha_bar)
        with torch.inference_mode():
            eps = (z - network.denoise(context, z, s)) / s
        hidden = ~observed.flatten(1)
        expected = reference[f"eps_t{step}"].reshape(len(observed), -1)[hidden]
        assert_allclose(eps[:, 0][hidden], expected, atol=1e-4)

    def test_levels_are_the_papers_chain(self, network, folder):
        alpha_bar = np.load(folder / "reference_outputs.npz")["alpha_bar"]
        levels = network.noise_levels(50, "ancestral")
        assert_allclose(levels[:-1], np.sqrt((1 - alpha_bar) / alpha_bar)[::-1], rtol=1e-9)
        assert levels[-1] == 0


def test_untrained_network_predicts_no_noise_but_a_bias():
    network = CSDINetwork(5, **SMALL, generator=rng())
    values, observed, cells, pad = windows()
    z = noisy(cells)
    denoised = network.denoise(encode(network, values, observed, cells, pad), z, 2.0)
    expected = (z - 2.0 * network.output2.bias).masked_fill(pad.unsqueeze(1), 0)
    assert_allclose(denoised.detach(), expected.detach(), atol=1e-6)


def test_location_and_scale_are_trivial():
    values, observed, cells, pad = windows()
    context = encode(small_network(), values, observed, cells, pad)
    assert torch.equal(context.location, torch.zeros(cells.shape))
    assert torch.equal(context.scale, torch.ones(cells.shape))


@pytest.mark.parametrize("n_inducing", [None, 3])
class TestIndependence:
    """What a target's estimate may not depend on."""

    def denoise(self, network, batch, z, s=0.7):
        with torch.no_grad():
            return network.denoise(encode(network, *batch), z, s)

    def test_padding(self, n_inducing):
        network = small_network(n_inducing=n_inducing)
        values, observed, cells, pad = windows()
        z = noisy(cells)
        narrow = self.denoise(network, (values, observed, cells, pad), z)
        widen = torch.nn.functional.pad
        longer = widen(cells, (0, 4)), widen(pad, (0, 4), value=True)
        garbage = torch.cat([z, torch.full((*z.shape[:2], 4), 1e3)], dim=-1)
        wide = self.denoise(network, (values, observed, *longer), garbage)
        assert_allclose(wide[..., :-4], narrow, atol=1e-6)
        assert torch.equal(wide[..., -4:], torch.zeros_like(wide[..., -4:]))

    def test_other_draws(self, n_inducing):
        network = small_network(n_inducing=n_inducing)
        batch = windows()
        z = noisy(batch[2], n_draws=3)
        together = self.denoise(network, batch, z)
        one_by_one = [self.denoise(network, batch, z[:, [m]]) for m in range(3)]
        assert_allclose(together, torch.cat(one_by_one, dim=1), atol=1e-5)
        assert (together[:, 0] - together[:, 1]).abs().max() > 0.1

    def test_other_windows(self, n_inducing):
        network = small_network(n_inducing=n_inducing)
        batch = windows()
        z = noisy(batch[2])
        together = self.denoise(network, batch, z)
        for i in range(3):
            alone = self.denoise(network, tuple(part[[i]] for part in batch), z[[i]])
            assert_allclose(alone, together[[i]], atol=1e-5)

    def test_order_of_targets(self, n_inducing):
        network = small_network(n_inducing=n_inducing)
        values, observed, cells, pad = windows()
        z = noisy(cells)
        straight = self.denoise(network, (values, observed, cells, pad), z)
        flipped = self.denoise(network, (values, observed, cells.flip(1), pad.flip(1)), z.flip(2))
        assert_allclose(flipped.flip(2), straight, atol=1e-5)


def test_every_target_depends_on_every_cell():
    network = small_network()
    values, observed, cells, pad = windows(n_windows=1)
    values.requires_grad_()
    z = noisy(cells, n_draws=1).requires_grad_()
    denoised = network.denoise(encode(network, values, observed, cells, pad), z, 0.7)
    denoised[0, 0, 0].backward()
    assert (values.grad[observed] != 0).all()
    assert (values.grad[~observed] == 0).all()
    assert (z.grad != 0).all()


def test_noise_level_by_draw_and_by_window():
    network = small_network()
    batch = windows()
    z = noisy(batch[2])
    context = encode(network, *batch)
    s = torch.tensor([[0.1, 1.0], [2.0, 3.0], [5.0, 0.5]])
    together = network.denoise(context, z, s.unsqueeze(-1)).detach()
    for i in range(3):
        for m in range(2):
            single = network.denoise(context, z, float(s[i, m])).detach()
            assert_allclose(together[i, m], single[i, m], atol=1e-5)


def test_place_of_a_level_on_the_table():
    network = small_network()
    levels = network.levels
    assert_allclose(network._step(levels), torch.arange(50.0), atol=1e-5)
    middle = (levels[:-1] * levels[1:]).sqrt()
    assert_allclose(network._step(middle), torch.arange(49) + 0.5, atol=1e-5)
    assert_allclose(network._step(torch.tensor([1e-9, 1e9])), [0, 49])


def test_ancestral_step_on_the_chain_is_the_papers():
    """The update formula of the paper, in its letters, against the step in (z, s)."""
    network = small_network()
    values, observed, cells, pad = windows()
    context = encode(network, values, observed, cells, pad)
    beta = np.linspace(1e-4**0.5, 0.5**0.5, 50) ** 2
    alpha, alpha_bar = 1 - beta, np.cumprod(1 - beta)
    levels = network.noise_levels(50, "ancestral")
    noise = [noisy(cells, seed=k) for k in range(49)]
    z = noisy(cells) * levels[0]
    x = z * math.sqrt(alpha_bar[-1])
    with torch.no_grad():
        drawn = solve(
            lambda z, s: network.denoise(context, z, s), z, levels,
            step="ancestral", noise=lambda i: noise[i],
        )  # fmt: skip
        for t in range(49, -1, -1):
            s = levels[49 - t]
            z = x / math.sqrt(alpha_bar[t])
            eps = (z - network.denoise(context, z, s)) / s
            x = (x - beta[t] / math.sqrt(1 - alpha_bar[t]) * eps) / math.sqrt(alpha[t])
            if t > 0:
                sd = math.sqrt((1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t])
                x = x + sd * noise[49 - t]
    keep = ~pad.unsqueeze(1).expand_as(x)
    assert_allclose(drawn[keep], x[keep], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("n_steps", [1, 2, 8, 12, 30, 50])
def test_noise_levels_decrease_to_zero(n_steps):
    levels = small_network().noise_levels(n_steps, "dpmpp_2m")
    assert len(levels) == n_steps + 1
    assert levels[-1] == 0
    assert (np.diff(levels) < 0).all()


class TestLoss:
    def masks(self, seed=0):
        known = torch.rand(4, 7, 5, generator=rng(seed)) < 0.7
        hidden = torch.rand(known.shape, generator=rng(seed + 1)) < 0.4
        values = torch.randn(known.shape, generator=rng(seed + 2)) * known
        return values, known & ~hidden, known & hidden

    def test_untrained_loss_is_the_noise_variance(self):
        network = CSDINetwork(5, **SMALL, generator=rng())
        torch.nn.init.zeros_(network.output2.bias)
        batch = [part.repeat(200, 1, 1) for part in self.masks()]
        n_targets = int(batch[-1].sum())
        loss = float(loss_of(network, *batch, rng(3)).detach())
        # Mean of n squared normals; five standard deviations, a false alarm in 1.7 million.
        assert abs(loss - 1) < 5 * math.sqrt(2 / n_targets)

    def test_an_oracle_has_no_loss(self, monkeypatch):
        """What reaches the network: nothing at observed cells, the noisy truth at the targets,
        noise around 0 where the truth is unknown."""
        network, (values, observed, targets) = small_network(), self.masks()
        truth = values.masked_fill(~targets, 0).unsqueeze(1)
        seen = []

        def oracle(noisy, step, inputs, sides):
            s = network.levels[step.long()][..., None, None]
            seen.append((noisy, (noisy * torch.sqrt(1 + s**2) - truth) / s))
            return seen[0][1]

        monkeypatch.setattr(network, "_predict", oracle)
        garbage = values.masked_fill(~(observed | targets), 1e6)
        assert loss_of(network, garbage, observed, targets, rng(3)) < 1e-6
        noisy, eps = (part.squeeze(1) for part in seen[0])
        assert (noisy[observed] == 0).all()
        unknown = eps[~observed & ~targets]
        assert abs(float(unknown.std()) - 1) < 5 / math.sqrt(2 * len(unknown))

    def test_gradient_reaches_every_parameter(self):
        network = small_network(n_inducing=3)
        loss_of(network, *self.masks(), rng(3)).backward()
        # The residual half of the last block leads nowhere, as in the published network.
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        assert all((p.grad != 0).any() for p in network.parameters())

    def test_generator_decides(self):
        network, batch = small_network(), self.masks()
        first, again, other = (loss_of(network, *batch, rng(seed)) for seed in (3, 3, 4))
        assert torch.equal(first, again)
        assert first != other

    def test_hidden_truth_enters_only_through_the_noisy_input(self):
        """At the largest noise level the truth of the targets is all but invisible."""
        network, (values, observed, targets) = small_network(), self.masks()
        with torch.no_grad():
            network.levels[:] = network.levels[-1]
            changed = torch.where(targets, values + 1, values)
            first = loss_of(network, values, observed, targets, rng(3))
            second = loss_of(network, changed, observed, targets, rng(3))
        assert_allclose(first, second, rtol=0.1)

    def test_training_on_one_batch_lowers_it(self):
        network, batch = small_network(), self.masks()
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        losses = []
        for _ in range(60):
            loss = loss_of(network, *batch, rng(3))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.5 * losses[0]

    def test_no_target(self):
        values, observed, targets = self.masks()
        loss = loss_of(small_network(), values, observed, targets & False, rng(3))
        assert loss == 0


def test_the_generator_alone_decides_the_weights():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (small_network(seed=seed, n_inducing=3) for seed in (1, 1, 2))
    loss_of(first, *TestLoss().masks(), rng(0))
    assert torch.equal(torch.get_rng_state(), before)
    states = [network.state_dict() for network in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_initial_weights_have_the_published_laws():
    network = CSDINetwork(35, generator=rng())
    block = network.blocks[0]
    assert_allclose(block.mid.weight.detach().std(), math.sqrt(2 / 64), rtol=0.05)
    assert_allclose(block.time.linear1.weight.detach().abs().max(), 1 / 8, rtol=0.01)
    project = block.time.attention.project
    assert_allclose(project.weight.detach().abs().max(), math.sqrt(6 / 256), rtol=0.01)
    assert (project.bias == 0).all()
    assert (network.output2.weight == 0).all()


class TestInducedAttention:
    def test_permutation_of_the_set(self):
        layer = _Transformer(16, 4, 3, rng())
        x = torch.randn(2, 9, 16, generator=rng(1))
        order = torch.randperm(9, generator=rng(2))
        assert_allclose(layer(x[:, order]).detach(), layer(x)[:, order].detach(), atol=1e-6)

    def test_permutation_of_the_features(self):
        network = small_network(n_inducing=3)
        values, observed, cells, pad = windows()
        order = torch.randperm(5, generator=rng(3))
        z = noisy(cells)
        straight = network.denoise(encode(network, values, observed, cells, pad), z, 0.7)
        with torch.no_grad():
            network.features.copy_(network.features[order])
        place = order.argsort()[cells % 5] + cells // 5 * 5
        permuted = encode(network, values[..., order], observed[..., order], place, pad)
        assert_allclose(network.denoise(permuted, z, 0.7).detach(), straight.detach(), atol=1e-5)

    def test_largest_tensor_grows_linearly_with_the_features(self):
        def largest(n_features, n_inducing):
            layer = _Transformer(16, 4, n_inducing, rng())
            sizes = []

            class Spy(torch.utils._python_dispatch.TorchDispatchMode):
                def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                    result = function(*args, **(kwargs or {}))
                    outputs = result if isinstance(result, tuple) else (result,)
                    sizes.extend(r.numel() for r in outputs if isinstance(r, torch.Tensor))
                    return result

            with Spy(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                layer(torch.zeros(1, n_features, 16))
            return max(sizes)

        assert largest(2000, 8) == 10 * largest(200, 8)
        assert largest(2000, None) == 100 * largest(200, None)


@pytest.mark.parametrize(("n_times", "n_features"), [(1, 5), (7, 1), (1, 1)])
def test_axes_of_length_one(n_times, n_features):
    network = small_network(n_features)
    values, observed, cells, pad = windows(n_times=n_times, n_features=n_features, n_windows=6)
    denoised = network.denoise(encode(network, values, observed, cells, pad), noisy(cells), 1.0)
    assert denoised.isfinite().all()


def test_width_not_divisible_by_heads():
    with pytest.raises(ValueError, match=r"n_channels=10 .* n_heads=4"):
        CSDINetwork(5, n_channels=10, n_heads=4, generator=rng())


THEIR_NAMES = {
    r"^features": "embed_layer.weight",
    r"^step_embedding\.linear": "diffmodel.diffusion_embedding.projection",
    r"^(in|out)put(\d?)\.": r"diffmodel.\1put_projection\2.",
    r"^blocks\.": "diffmodel.residual_layers.",
    r"(\d\.)(diffusion|mid|output)\.": r"\1\2_projection.",
    r"(\d\.)side\.": r"\1cond_projection.",
    r"(\d\.)(time|feature)\.": r"\1\2_layer.layers.0.",
    r"attention\.project\.": "self_attn.in_proj_",
    r"attention\.out\.": "self_attn.out_proj.",
}
CONVOLUTIONS = re.compile(r"(input|output|cond|mid)_projection\d?\.weight")


def published(network):
    """State dict of a network in the published names and shapes."""
    state = {}
    for name, weight in network.state_dict().items():
        for ours, theirs in THEIR_NAMES.items():
            name = re.sub(ours, theirs, name)
        state[name] = weight.unsqueeze(-1) if CONVOLUTIONS.search(name) else weight
    return state


class TestLoad:
    @pytest.fixture
    def saved(self, tmp_path):
        def save(change=lambda state: state):
            path = tmp_path / "model.pth"
            torch.save(change(published(small_network())), path)
            return path

        return save

    def test_roundtrip(self, saved):
        network = small_network()
        loaded = load_csdi_checkpoint(saved(), n_heads=4)
        for name, weight in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight), name

    def test_own_state_dict_roundtrip(self):
        network, other = small_network(seed=0), small_network(seed=5)
        other.load_state_dict(network.state_dict(), strict=True)
        batch = windows()
        z = noisy(batch[2])
        results = [m.denoise(encode(m, *batch), z, 0.5) for m in (network, other)]
        assert torch.equal(*results)

    def test_truncated(self, saved):
        path = saved()
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(ValueError, match="damaged"):
            load_csdi_checkpoint(path)

    def test_not_a_checkpoint(self, tmp_path):
        path = tmp_path / "model.pth"
        path.write_text("<html>404</html>")
        with pytest.raises(ValueError, match="damaged"):
            load_csdi_checkpoint(path)

    def test_absent(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            load_csdi_checkpoint(tmp_path / "absent.pth")

    def test_code_is_refused(self, tmp_path):
        path, trace = tmp_path / "model.pth", tmp_path / "trace"

        class Malicious:
            def __reduce__(self):
                return (open, (str(trace), "w"))

        for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
            write({"embed_layer.weight": Malicious()}, path)
            with pytest.raises(ValueError, match="other objects"):
                load_csdi_checkpoint(path)
            assert not trace.exists()

    def test_archive_bomb(self, saved, tmp_path):
        bomb = tmp_path / "bomb.pth"
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data/0", bytes(10**6))
        with pytest.raises(ValueError, match="damaged"):
            load_csdi_checkpoint(bomb)

    def test_repeated_storage(self, saved):
        huge = torch.zeros(1).expand(10**12).view(10**6, 10**6)
        with pytest.raises(ValueError, match="dense"):
            load_csdi_checkpoint(saved(lambda state: state | {"embed_layer.weight": huge}))

    def test_not_finite(self, saved):
        bad = torch.full((5, 16), torch.nan)
        with pytest.raises(ValueError, match="finite"):
            load_csdi_checkpoint(saved(lambda state: state | {"embed_layer.weight": bad}))

    @pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
    def test_another_architecture(self, saved, change):
        def spoil(state):
            name = "diffmodel.residual_layers.1.mid_projection.weight"
            if change == "missing":
                del state[name]
            elif change == "unexpected":
                state["extra"] = torch.zeros(2)
            else:
                state[name] = state[name][:-1].clone()
            return state

        with pytest.raises(ValueError, match="not the network of the CSDI paper"):
            load_csdi_checkpoint(saved(spoil), n_heads=4)

    def test_another_model(self, tmp_path):
        path = tmp_path / "model.pth"
        torch.save(torch.nn.Linear(3, 2).state_dict(), path)
        with pytest.raises(ValueError, match="not a CSDI checkpoint"):
            load_csdi_checkpoint(path)

    def test_unconditional_model(self, saved):
        name = "diffmodel.input_projection.weight"
        with pytest.raises(ValueError, match="unconditional"):
            load_csdi_checkpoint(saved(lambda state: state | {name: state[name][:, :1].clone()}))

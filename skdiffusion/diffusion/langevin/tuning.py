"""Step sizes from acceptance, and the shape of a target from its gradient."""

import math

import torch

from skdiffusion.diffusion.langevin.chains import Chains
from skdiffusion.diffusion.langevin.mala import MALA


def tune(target, kernel, x, noise, n_steps=100):
    """Adapt the step size of a kernel that refuses steps, on a block of chains.

    Parameters
    ----------
    target : skdiffusion.diffusion.target.Target
        What to sample.
    kernel : Kernel
        What moves the chains; its step size is the first guess.
    x : tensor of shape (n_chains, n_features)
        Starting points.
    noise : object
        Noise of the chains.
    n_steps : int, default=100
        Steps of adaptation.

    Returns
    -------
    kernel : Kernel
        The kernel with the step size found.
    x : tensor of shape (n_chains, n_features)
        Where the chains are.
    """
    with torch.no_grad():
        chains = Chains(target, kernel, x, noise)
        chains.prepare()
        later = []
        for i in range(n_steps):
            info = chains.step()
            acceptance = info.acceptance.reshape(kernel.n_replicas, -1).mean(1, keepdim=True)
            levels = chains.step_size.reshape(kernel.n_replicas, -1)[:, :1]
            levels = adapt(levels, acceptance, i, kernel.target_acceptance)
            chains.step_size = levels.repeat_interleave(len(x), 0)
            later += [levels.log()] if i >= n_steps // 2 else []
        found = torch.stack(later).mean(0).exp()[:, 0].tolist()
    step_size = tuple(found) if kernel.n_replicas > 1 else found[0]
    return kernel.with_step_size(step_size), chains.position()


def choose(target, kernel, x, noise, n_steps=100):
    """Tune a kernel and take the best one of its alternatives.

    Parameters
    ----------
    target : skdiffusion.diffusion.target.Target
        What to sample.
    kernel : Kernel
        What moves the chains; its step size is the first guess.
    x : tensor of shape (n_chains, n_features)
        Starting points.
    noise : object
        Noise of the chains.
    n_steps : int, default=100
        Steps of adaptation of the first alternative; the others begin where it ended, and take a
        quarter of them.

    Returns
    -------
    kernel : Kernel
        The kernel found.
    x : tensor of shape (n_chains, n_features)
        Where the chains are.

    Notes
    -----
    Alternatives, the cheapest first, are compared until one is half as good as the best, by the
    draws that a step is worth for every evaluation: of the positions and of the squared distance
    from the centre, which a trajectory that turns back does not change [1]_.

    References
    ----------
    .. [1] M. Hoffman, A. Radul, P. Sountsov, "An adaptive-MCMC scheme for setting trajectory
       lengths in Hamiltonian Monte Carlo", AISTATS 2021,
       https://proceedings.mlr.press/v130/hoffman21a.html.
    """
    best, most = None, -math.inf
    for candidate in kernel.alternatives or (kernel,):
        candidate = candidate.with_step_size(best.step_size if best else kernel.step_size)
        tuned, x = tune(target, candidate, x, noise, n_steps // 4 if best else n_steps)
        if not kernel.alternatives:
            return tuned, x
        gain, x = _efficiency(target, tuned, x, noise)
        if gain > most:
            best, most = tuned, gain
        elif gain < most / 2:
            break
    return best.tuned(), x


# Steps by which alternatives are compared, on a hundred chains or so.
_N_COMPARED = 16


def _efficiency(target, kernel, x, noise):
    """Effective draws an evaluation, by the correlation of a step's ends.

    It is that of the positions, or twice that of the squared distance from the centre if that is
    less: to the square a trajectory that turns back is no gain.
    """
    with torch.no_grad():
        chains = Chains(target, kernel, x, noise)
        chains.prepare()
        places = [chains.position()]
        for _ in range(_N_COMPARED):
            chains.step()
            places.append(chains.position())
        centred = torch.stack(places) - torch.stack(places).flatten(0, 1).mean(0)
        squares = centred.square().sum(2, keepdim=True)
        worth = min(_worth(centred), 2 * _worth(squares - squares.mean()))
        cost = max(chains.evaluations / _N_COMPARED, kernel.cost)
        return worth / cost, chains.position()


def _worth(values):
    """Independent draws that a step is worth where correlation falls by the same each step."""
    change = float((values[1:] - values[:-1]).square().mean() / (2 * values.square().mean()))
    correlation = min(max(1 - change, -0.9), 1.0)
    return (1 - correlation) / (1 + correlation)


def curvature(target, x, spread):
    """Largest curvature of the log density near some points, by differences of the gradient.

    Parameters
    ----------
    target : skdiffusion.diffusion.target.Target
        Target.
    x : tensor of shape (n_points, n_features)
        Points.
    spread : tensor of shape (n_points, n_features)
        Standard normals, the directions first tried.

    Returns
    -------
    curvature : float
        Upper decile over the points of the norm of the Hessian, by a few power iterations; the
        mean square of a component of the gradient, which has the same expectation, where the log
        density is made of flat pieces, as that of a Laplace distribution.
    """
    with torch.no_grad():
        base, direction = target.gradient(x), spread
        width = 1e-3 if x.dtype == torch.float32 or target.is_single else 1e-5
        width = width * (1 + x.abs().max())
        for _ in range(5):
            direction = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-300)
            direction = (target.gradient(x + width * direction) - base) / width
        norms = direction.norm(dim=1)
        norms = norms[torch.isfinite(norms)]
        if len(norms) == 0:
            return 1.0
        bend, square = float(norms.quantile(0.9)), float(base.square().nanmean())
        # Of a Gaussian the two differ by as much a thousand deviations from its mean only.
        return max(square if bend < 1e-6 * square < math.inf else bend, 1e-12)


def roundness(target, x):
    """Largest curvature of the log density times the largest variance of points of it.

    Parameters
    ----------
    target : skdiffusion.diffusion.target.Target
        Target.
    x : tensor of shape (n_points, n_features)
        Points, about draws from the target.

    Returns
    -------
    roundness : float
        1 for a standard Gaussian, the condition number for any other: the number of steps that a
        chain needs is proportional to it.
    """
    directions = (x - x.mean(0)) / x.std(0).clamp_min(1e-300)
    variance = torch.linalg.eigvalsh(torch.cov(x.T).reshape(x.shape[1], -1))[-1]
    return float(variance) * curvature(target, x, directions)


def adapt(step_size, acceptance, i, target=MALA.target_acceptance):
    """Move a step size towards the target acceptance, by Robbins and Monro.

    Parameters
    ----------
    step_size : float or tensor
        Present step size.
    acceptance : float or tensor
        Mean acceptance at that step size.
    i : int
        Number of adaptations made before; the gain falls as ``(i + 1) ** -0.5``.
    target : float, default=0.574
        Acceptance to reach.

    Returns
    -------
    step_size : float or tensor
        Next step size.
    """
    gain = 2 * (acceptance - target) / math.sqrt(i + 1)
    return step_size * (gain.exp() if isinstance(gain, torch.Tensor) else math.exp(gain))
